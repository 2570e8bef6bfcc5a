"""Dead letters of a running system, redriven by the command line: in order, each once, and nothing happens twice."""

import pytest

from tests.system.house import House
from tests.system.scenarios import command, redriven_twice_at_once

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

TICKETS = 150


async def test_letters_redriven_twice_at_once_under_load_are_handled_once_and_in_order(house: House) -> None:
    await redriven_twice_at_once(house, letters=TICKETS, behind=TICKETS, others=50, rate=100)
    jobs = await command(house, "dlt", "jobs")
    assert sorted(job["by"] for job in jobs if job["status"] == "done") == ["bo", "mia"]
    for job in jobs:
        told = await command(house, "dlt", "job", job["job_id"])
        assert {letter["now"] for letter in told["letters"]} <= {"settled", None}
    assert (await command(house, "dlt", "list"))["count"] == 0


async def test_a_dry_run_and_a_redrive_of_no_letters_note_no_job(house: House) -> None:
    for arguments in (
        ("redrive", "triage", "--dry-run"),
        ("redrive", "triage"),
        ("discard", "triage", "--reason", "x"),
    ):
        code, printed = await house.system.run("dlt", *arguments)
        assert (code, printed) == (0, "no dead letters of triage wait for a person\n")
    assert await command(house, "dlt", "jobs") == []


async def test_what_cannot_be_is_said_in_one_sentence(house: House) -> None:
    for arguments, sentence in {
        ("list", "nobody"): "there is no agent 'nobody'; the agents are triage",
        ("list", "--since", "yesterday"): "'yesterday' is no time; write it like",
        ("show", "x"): "there is no dead letter 'x' (`switchyard dlt list` shows those there are)",
        ("resume", "x"): "there is no job 'x' (`switchyard dlt jobs` shows those there were)",
        ("cancel", "x"): "there is no job 'x' (`switchyard dlt jobs` shows those there were)",
        ("redrive", "nobody"): "there is no agent 'nobody'; the agents are triage",
        ("redrive", "triage", "--letter", "x"): "there is no dead letter 'x' of triage that waits for a person",
    }.items():
        code, printed = await house.system.run("dlt", *arguments)
        assert (code, len(printed.splitlines())) == (2 if "nobody" in arguments else 1, 1), printed
        assert sentence in printed


@pytest.mark.parametrize("away", ["KAFKA__BOOTSTRAP_SERVERS", "POSTGRES__DSN"])
async def test_a_cluster_that_is_down_is_said_in_one_sentence(house: House, away: str) -> None:
    down = {"KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9", "POSTGRES__DSN": "postgresql://nobody@127.0.0.1:9/none"}
    house.system.environment[f"SWITCHYARD_{away}"] = down[away]
    for arguments in (("list",), ("redrive", "triage")):
        code, printed = await house.system.run("dlt", *arguments)
        assert (code, printed.splitlines()[-1].startswith("switchyard: ")) == (1, True), printed
        assert "Traceback" not in printed
