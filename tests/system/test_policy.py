"""`switchyard policy` on a database: what each command prints, and what it changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.errors import Misconfigured
from ops.cli import app

pytestmark = pytest.mark.postgres

POLICY = "# Policy\n\n## Returns\n\nBring it back within a month.\n\n## Gift cards\n\nThey never expire.\n"
Policy = Callable[..., Any]


@pytest.fixture
def policy(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """Runs a `switchyard policy` command with --json on a fresh database."""
    monkeypatch.setenv("SWITCHYARD_POSTGRES__DSN", postgres_dsn)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["policy", *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def test_a_policy_is_loaded_listed_shown_and_searched(policy: Policy, tmp_path: Path) -> None:
    file = tmp_path / "policy.md"
    file.write_text(POLICY)
    first = policy("load", str(tmp_path))
    assert first == {"version": first["version"], "changed": True, "passages": 2}
    assert policy("load", str(tmp_path)) == first | {"changed": False}

    file.write_text(POLICY.replace("month", "week"))
    second = policy("load", str(tmp_path))
    assert second["changed"]
    listed = policy("list")
    assert [(one["version"], one["passages"], one["in_force"]) for one in listed] == [
        (second["version"], 2, True),
        (first["version"], 2, False),
    ]

    [returns, _] = policy("show")["passages"]
    assert (returns["heading"], returns["text"]) == ("Policy > Returns", "Bring it back within a week.")
    old = policy("show", "--version", first["version"][:8])
    assert (old["version"], old["passages"][0]["text"]) == (first["version"], "Bring it back within a month.")
    assert [found["heading"] for found in policy("search", "when does my gift card expire?", "--limit", "1")] == [
        "Policy > Gift cards"
    ]


def test_what_is_not_there_is_said_with_the_way_out(policy: Policy, tmp_path: Path) -> None:
    assert policy("list") == policy("search", "anything") == []
    with pytest.raises(Misconfigured, match=r"no policy was loaded.*switchyard policy load"):
        policy("show")
    (tmp_path / "policy.md").write_text(POLICY)
    policy("load", str(tmp_path))
    with pytest.raises(Misconfigured, match="there is no version ffffff"):
        policy("show", "--version", "ffffff")


def test_where_tenants_are_named_each_has_its_own_policy(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHYARD_TENANTS", "north,south")
    (tmp_path / "policy.md").write_text(POLICY)
    with pytest.raises(Misconfigured, match="--tenant must name one of"):
        policy("load", str(tmp_path))
    policy("load", str(tmp_path), "--tenant", "north")
    assert len(policy("show", "--tenant", "north")["passages"]) == 2
    assert policy("list", "--tenant", "south") == []
