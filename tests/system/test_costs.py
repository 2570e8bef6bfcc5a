"""What models cost, on a running system: every call of the ledger is a row, at the same price."""

import json
from collections import defaultdict
from decimal import Decimal

import pytest

from llm.prices import Prices
from tests.fleet.fleet import cost_of
from tests.system.house import House, support_cases
from tests.system.kit import AGENTS, until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]


async def test_the_costs_of_all_support_cases_are_those_of_the_ledger_to_the_last_digit(house: House) -> None:
    cases = await support_cases(house)
    await house.system.start_workers(AGENTS)
    await house.publish(*((case.id, case.as_record()) for case in cases))
    await house.until_outcomes(len(cases))
    await house.until_at_rest()

    prices = Prices()
    billed = {entry["id"]: cost_of(entry, prices) for entry in house.system.paid_calls()}
    rows = await house.pool.fetch("SELECT provider_call_id, ticket_id, cost_usd FROM model_calls")
    assert {row["provider_call_id"]: row["cost_usd"] for row in rows} == billed
    by_ticket: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        by_ticket[row["ticket_id"]] += row["cost_usd"]

    code, printed = await house.system.run("cost", "--by", "ticket", "--json")
    assert code == 0, printed
    report = json.loads(printed)
    assert {row["key"]: Decimal(row["cost_usd"]) for row in report["rows"]} == by_ticket
    assert Decimal(report["total"]["cost_usd"]) == sum(billed.values()) > 0
    assert report["total"]["calls"] == len(billed)

    async def told() -> bool:
        sent = await house.pool.fetchval("SELECT count(*) FROM emitted WHERE type = 'ModelCalled'")
        return bool(sent == len(billed))

    await until(told, "an event for each call")
