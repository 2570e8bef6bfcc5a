"""Dead letters of a running system, redriven by the command line: in order, each once, and nothing happens twice."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from tests.system.house import House
from tests.system.kit import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(300)]

TICKETS = 150


async def command(house: House, *arguments: str) -> Any:
    """The document that a command prints; it must succeed."""
    code, printed = await house.system.run("dlt", *arguments, "--json")
    assert code == 0, printed
    return json.loads(printed.splitlines()[-1])


async def test_letters_redriven_twice_at_once_under_load_are_handled_once_and_in_order(house: House) -> None:
    await house.system.set_faults([{"kind": "refused", "status": 400, "text": "[ticket:sick"}])
    await house.system.start_workers(("triage", "lookup", "effects"))
    sick = [f"sick{n}" for n in range(TICKETS)]
    for body in ("Where is my order?", "Where is it, please?"):
        await house.publish_tickets(*({"ticket_id": t, "body": f"{body} [ticket:{t}]"} for t in sick))

    async def all_wait() -> bool:
        behind = "SELECT count(*) FROM parked_records"
        first = "SELECT count(*) FROM parked_tickets WHERE due_at IS NULL"
        return list(await house.pool.fetchrow(f"SELECT ({first}), ({behind})")) == [TICKETS, TICKETS]

    await until(all_wait, "a dead letter of each ticket")
    listed = await command(house, "list", "triage", "--error", "ModelRefused")
    assert (listed["count"], [one["behind"] for one in listed["fingerprints"]]) == (TICKETS, [TICKETS])
    would = await command(house, "redrive", "triage", "--dry-run")
    assert (would["counts"], await command(house, "jobs")) == ({"freed": TICKETS}, [])
    await house.system.set_faults([])
    redrives = [command(house, "redrive", "triage", "--by", by, "--rate", "100") for by in ("mia", "bo")]
    well = [{"ticket_id": f"well{n}", "body": f"Where is my order? [ticket:well{n}]"} for n in range(50)]
    *done, _ = await asyncio.gather(*redrives, house.publish_tickets(*well))
    fates = Counter[str]()
    for job in done:
        assert {"planned", "taken"} & set(job["counts"]) == set()
        fates.update(job["counts"])
    assert fates["freed"] == TICKETS
    await house.until_outcomes(2 * TICKETS + len(well))
    await house.until_at_rest()
    assert {len(house.seen[t]) for t in sick} == {2}
    assert all([one["round"] for one in house.seen[t]] == [1, 2] for t in sick)
    assert await house.pool.fetchval("SELECT count(*) FROM parked_tickets") == 0
    paid = Counter(call["ticket"] for call in house.system.paid_calls())
    assert max(paid.values()) <= 2  # one a round
    jobs = await command(house, "jobs")
    assert sorted(job["by"] for job in jobs if job["status"] == "done") == sorted(job["by"] for job in jobs)
    told = await command(house, "job", done[0]["job_id"])
    assert {letter["now"] for letter in told["letters"]} <= {"settled", None}
    assert (await command(house, "list"))["count"] == 0


async def test_what_cannot_be_is_said_in_one_sentence(house: House) -> None:
    for arguments, sentence in {
        ("list", "nobody"): "there is no agent 'nobody'; the agents are triage",
        ("list", "--since", "yesterday"): "'yesterday' is no time; write it like",
        ("show", "x"): "there is no dead letter 'x' (`switchyard dlt list` shows those there are)",
        ("resume", "x"): "there is no job 'x' (`switchyard dlt jobs` shows those there were)",
    }.items():
        code, printed = await house.system.run("dlt", *arguments)
        assert (code, len(printed.splitlines())) == (1, 1), printed
        assert sentence in printed
