"""`switchyard eval cases` against a running system."""

import json
from pathlib import Path

import pytest

from state.shop_files import load_shop
from tests.system.house import House
from tests.system.kit import AGENTS
from tests.unit.evals.kit import EXPORT, case, write_cases

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]


async def test_cases_go_through_kafka_and_a_worse_system_than_the_baseline_exits_1(
    house: House, tmp_path: Path
) -> None:
    await load_shop(house.pool, "default", EXPORT)
    await house.system.start_workers(AGENTS)
    data = write_cases(tmp_path / "cases.jsonl", *(case(f"c{n}") for n in range(20)))
    kept = str(tmp_path / "baseline.json")
    code, said = await house.system.run("eval", "cases", "--data", str(data), "--json", "--write-baseline", kept)
    told = json.loads(said.splitlines()[-1])
    assert (code, told["n"], told["right"], told["leaks"]) == (0, 20, 1, 0), said
    assert told["cost_usd_per_ticket"] > 0
    assert told["p95_s"] > 0

    write_cases(data, *(case(f"c{n}", orders=[]) for n in range(20)))
    again = ["--suffix=-again", "--json", "--baseline", kept]
    code, said = await house.system.run("eval", "cases", "--data", str(data), *again)
    assert (code, json.loads(said.splitlines()[-1])["verdict"]) == (1, "fail"), said
