"""The timeline of a ticket that had everything happen to it, on a running system."""

import json
from typing import Any

import pytest

from ops.replay.service import Candidate, replay_ticket
from tests.system.house import House
from tests.system.kit import AGENTS, until
from tests.system.test_replay import settings_of, until_reviewed

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

TICKET = {"ticket_id": "t1", "from_email": "nobody@example.com", "body": "I want to talk to a human being. [ticket:t1]"}


async def told(house: House) -> dict[str, Any]:
    code, printed = await house.system.run("ticket", "t1", "--json")
    assert code == 0, printed
    document: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return document


async def until_fault(house: House, condition: str) -> None:
    async def happened() -> bool:
        return bool(await house.pool.fetchval(f"SELECT EXISTS (SELECT FROM setbacks WHERE {condition})"))

    await until(happened, f"a failure with {condition}")


async def test_everything_that_happened_to_a_ticket_is_told_in_one_order(house: House) -> None:
    await house.system.set_faults([{"kind": "overloaded", "retry_after_s": 4}])
    await house.system.start_workers((*AGENTS, "review"))
    await house.publish_tickets(TICKET)
    await until_fault(house, "due_at IS NOT NULL")
    await house.system.set_faults([{"kind": "refused", "status": 400}])
    await until_fault(house, "due_at IS NULL")
    await _assert_blocked(house)
    await house.system.set_faults([])
    code, printed = await house.system.run("dlt", "redrive", "triage", "--by", "mia", "--json")
    assert code == 0, printed
    await house.until_outcomes(1)
    await _answered_by_a_person(house)

    document = await told(house)
    moments = document["timeline"]
    assert document["waits"] == []
    assert [one["at"] for one in moments] == sorted(one["at"] for one in moments)
    kinds = list(dict.fromkeys(one["what"] for one in moments if one["what"] != "emitted"))
    assert kinds[:5] == ["model", "parked", "dead letter", "job", "handled"], kinds
    assert set(kinds[5:]) == {"effect", "person"}
    calls = [one for one in moments if one["what"] == "model"]
    assert [call["outcome"] for call in calls][-1] == "ok"
    assert {"overloaded", "refused"} <= {call["outcome"] for call in calls}
    assert [call["cost_usd"] > 0 for call in calls] == [call["outcome"] == "ok" for call in calls]
    [job] = [one for one in moments if one["what"] == "job"]
    assert (job["act"], job["by"], job["fate"]) == ("redrive", "mia", "freed")
    [person] = [one for one in moments if one["what"] == "person"]
    assert (person["decision"], person["decided_by"]) == ("answer", "bo")
    placed = [one for one in moments if one["what"] in ("handled", "emitted")]
    assert all(one["topic"] and one["offset"] >= 0 and one["partition"] >= 0 for one in placed)
    traces = [one["trace_id"] for one in placed]
    assert None not in traces
    assert len(set(traces)) == 2, "a person's decision begins a trace of its own"

    steps = [one for one in moments if one["what"] == "handled"]
    assert [one["step"] for one in steps] == list(range(1, len(steps) + 1))
    for place in (1, len(steps)):
        report = await replay_ticket("t1", str(place), Candidate(), settings_of(house))
        assert report.totals["same"] == 1, report.as_document()
        assert report.tickets[0].steps == len(steps) - place + 1
    await _assert_readable(house, len(steps))


async def _assert_blocked(house: House) -> None:
    document = await told(house)
    [waits] = document["waits"]
    assert (waits["group"], waits["due_at"], waits["behind"]) == ("triage", None, 0)
    assert waits["error"].startswith("ModelRefused")
    code, printed = await house.system.run("ticket", "t1")
    assert code == 0, printed
    assert "blocked in triage by a dead letter, support.tickets.v1/" in printed
    assert "`switchyard dlt redrive triage`" in printed


async def _answered_by_a_person(house: House) -> None:
    async def waits() -> bool:
        return bool(await house.pool.fetchval("SELECT count(*) FROM reviews WHERE status = 'open'"))

    await until(waits, "a review")
    review = await house.pool.fetchval("SELECT review_id FROM reviews")
    code, printed = await house.system.run("review", "answer", review, "--by", "bo", "--reply", "We call you.")
    assert code == 0, printed
    await house.until_outcomes(2)
    await house.until_at_rest()
    await until_reviewed(house.pool)


async def _assert_readable(house: House, steps: int) -> None:
    code, printed = await house.system.run("ticket", "t1")
    assert code == 0, printed
    for words in ("failed after", "became a dead letter", "mia: redrive by job", "person bo decided answer", "(fast)"):
        assert words in printed
    numbered = [line.split()[0] for line in printed.splitlines() if line.split()[0].isdecimal()]
    assert numbered == [str(number) for number in range(1, steps + 1)]
