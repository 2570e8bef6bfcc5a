import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evals.cli import switchyard
from evals.registry import EVALS
from ops.cli import app as operating
from tests.unit.evals.kit import STRINGS, case, write_cases, write_shop


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(switchyard(), ["eval", *map(str, arguments)])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def test_the_command_offers_the_evals_beside_what_operates_the_system() -> None:
    offered = {group.name for group in switchyard().registered_groups}
    assert "eval" in offered
    assert {group.name for group in operating.registered_groups} == offered - {"eval"}
    assert set(EVALS) == {name for name in EVALS if run(name, "--help").exit_code == 0}


def test_help_imports_no_eval_and_no_library_of_evals() -> None:
    code = "import sys, evals.cli; evals.cli.switchyard(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic_evals", "aiokafka", "asyncpg", "evals.injection", "evals.gate"} & set(loaded) == set()


def test_a_baseline_is_stored_on_purpose_and_a_worse_run_exits_1(tmp_path: Path, shop: Path) -> None:
    data = write_cases(tmp_path / "cases.jsonl", *(case(f"c{n}") for n in range(20)))
    kept = tmp_path / "baseline.json"
    stored = run("cases", "--data", data, "--shop", shop, "--json", "--write-baseline", kept)
    assert stored.exit_code == 0, stored.output
    assert json.loads(stored.output)["verdict"] == "pass"

    write_cases(data, *(case(f"c{n}", orders=[]) for n in range(20)))
    worse = run("cases", "--data", data, "--shop", shop, "--json", "--baseline", kept)
    told = json.loads(worse.output)
    assert (worse.exit_code, told["verdict"], told["right"]) == (1, "fail", 0)
    assert "100.0 points lower" in told["reasons"][0]
    assert "verdict: fail" in run("cases", "--data", data, "--shop", shop, "--baseline", kept).output


def test_the_baseline_holds_ids_and_figures_and_none_of_the_texts(tmp_path: Path, shop: Path) -> None:
    strings = write_cases(tmp_path / "strings.jsonl", *STRINGS[:1])
    done = run("injection", "--data", strings, "--shop", shop, "--json", "--write-baseline", tmp_path / "b.json")
    assert json.loads(done.output)["violations"] == 0
    assert STRINGS[0]["text"][:20] not in (tmp_path / "b.json").read_text()


def test_data_that_is_not_there_is_a_wrong_option(tmp_path: Path, shop: Path) -> None:
    assert run("cases", "--data", tmp_path / "none.jsonl", "--shop", shop).exit_code == 2
