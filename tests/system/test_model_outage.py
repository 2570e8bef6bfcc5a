"""Models that do not answer, on a running system: work waits, nothing is lost, and what was paid adds up."""

import asyncio
import json
from decimal import Decimal

import pytest

from llm.prices import Prices
from tests.fleet.fleet import cost_of
from tests.system.house import House
from tests.system.kit import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

TICKETS = 60
_UNDER_WAY_S = 3.0  # for calls that were begun before the breakers opened
_HELD_S = 6.0  # several times what a breaker stays open


async def test_with_every_model_dead_work_waits_spends_no_try_and_goes_on_by_itself(house: House) -> None:
    house.system.environment["SWITCHYARD_LLM__BREAKER"] = json.dumps({"open_s": 1, "longest_open_s": 1})
    house.system.environment["SWITCHYARD_LLM__FAST"] = "anthropic:claude-haiku-4-5,openai:gpt-5.4-mini"
    await house.system.set_faults([{"kind": "server_error"}])
    await house.system.start_workers(("triage", "lookup"))
    bodies = [f"Where is my order? [ticket:t{n}]" for n in range(TICKETS)]
    await house.publish_tickets(*({"ticket_id": f"t{n}", "body": body} for n, body in enumerate(bodies)))

    async def both_left_alone() -> bool:
        failed = [call["protocol"] for call in house.system.calls() if call["status"] == 500]
        return {"anthropic", "openai"} <= set(failed) and len(failed) >= 10

    await until(both_left_alone, "calls that failed")
    await asyncio.sleep(_UNDER_WAY_S + _HELD_S)
    came = [call["arrived"] for call in house.system.calls()]
    probes = [at for at in came if at > came[0] + _UNDER_WAY_S]
    assert 1 <= len(probes) <= 2 * (probes[-1] - probes[0] + 1)  # of two models, one a second
    assert await house.pool.fetchval("SELECT count(*) FROM parked_tickets WHERE due_at IS NULL") == 0
    await house.system.set_faults([])
    await house.until_outcomes(TICKETS)
    await house.until_at_rest()
    assert {len(found) for found in house.seen.values()} == {1}
    assert await house.pool.fetchval("SELECT count(*) FROM parked_tickets") == 0
    assert len(house.system.paid_calls()) == TICKETS
    await _assert_costs_add_up(house)


async def _assert_costs_add_up(house: House) -> None:
    """What `switchyard cost` says of each ticket is what the stand-in's ledger does, to the last digit."""
    prices, billed = Prices(), dict[str, Decimal]()
    for entry in house.system.paid_calls():
        billed[entry["ticket"]] = billed.get(entry["ticket"], Decimal(0)) + cost_of(entry, prices)
    code, printed = await house.system.run("cost", "--by", "ticket", "--json")
    assert code == 0, printed
    report = json.loads(printed)
    assert {row["key"]: Decimal(row["cost_usd"]) for row in report["rows"]} == billed
    assert Decimal(report["total"]["cost_usd"]) == sum(billed.values())
