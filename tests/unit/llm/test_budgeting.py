"""Which budgets a call counts in, and what becomes of it where there is no room."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from contracts.errors import BudgetSpent, Deferred, ModelUnavailable
from contracts.model_ports import Budget, Busy, Granted, Hold, ProviderCall, Spent
from contracts.models import Degrade
from contracts.values import Tier
from llm.budgeting import Allowance, budgets_of, budgets_of_agent
from llm.fallback import attempt_at
from llm.prices import Price, Prices
from llm.provider import Prompt
from ops.settings import AllowanceSettings
from tests.unit.llm.kit import CALL, REQUEST, asked_for, shared, target
from tests.unit.llm.scripted_providers import GOOD, Told, over

PRICES = Prices({("own", "m"): Price(Decimal(1), Decimal(1))})
DOLLAR = {"tenant": AllowanceSettings(usd=Decimal(1))}


class Purse:
    """Budgets of one amount in memory, for whom a hold costs a fixed part of it."""

    def __init__(self, holds: int) -> None:
        self.room = holds
        self.spent = False
        self.log: list[str] = []

    async def reserve(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> Granted | Busy | Spent:
        if self.spent:
            return Spent(budgets[0])
        if not self.room:
            return Busy(budgets[0])
        self.room -= 1
        self.log.append(call.context.event_id)
        return Granted()

    async def settle(
        self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget], *, usd: Decimal, tokens: int
    ) -> None:
        self.room += 1
        self.log.append(f"settled {usd:f}")

    async def release(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> None:
        self.room += 1
        self.log.append("released")


def test_the_budgets_of_an_agent_are_those_of_its_calls_that_are_nobody_elses() -> None:
    prompt = Prompt(REQUEST, replace(CALL, customer="ann@example.com"), 30)
    call = replace(attempt_at(target(Told(), "own", "m"), prompt, PRICES).call, day=date(2026, 3, 1))
    allowances = {scope: Allowance(usd=Decimal(1)) for scope in ("ticket", "customer", "tenant", "agent", "day")}
    of_agent = budgets_of_agent(CALL.agent, date(2026, 3, 1), allowances)
    assert of_agent == [budget for budget in budgets_of(call, allowances) if budget.scope in ("agent", "day")]


def test_a_call_counts_in_every_budget_that_is_set_and_that_it_has() -> None:
    prompt = Prompt(REQUEST, replace(CALL, customer="ann@example.com"), 30)
    attempt = attempt_at(target(Told(), "own", "m"), prompt, PRICES)
    attempt.call = replace(attempt.call, day=date(2026, 3, 1))
    allowances = {
        "request": Allowance(usd=Decimal(1)),
        "ticket": Allowance(usd=Decimal(2)),
        "customer": Allowance(tokens=3),
        "tenant": Allowance(),
        "day": Allowance(usd=Decimal(4)),
    }
    found = budgets_of(attempt.call, allowances)
    assert [(b.scope, b.window) for b in found] == [("ticket", ""), ("customer", "2026-03-01"), ("day", "2026-03-01")]
    assert [b.scope_id for b in found] == ["t1", attempt.call.context.customer_digest, "all"]
    unknown = replace(attempt.call, context=CALL)
    assert [b.scope for b in budgets_of(unknown, allowances)] == ["ticket", "day"]


async def test_what_one_request_may_cost_is_bounded_by_itself() -> None:
    provider = Told()
    with pytest.raises(BudgetSpent):
        await over(provider, budgets={"request": AllowanceSettings(tokens=10)}, links=shared(budgets=Purse(1))).ask(
            REQUEST, CALL
        )
    assert not provider.prompts


async def test_a_call_is_settled_for_what_it_cost_and_a_failed_one_for_nothing() -> None:
    purse = Purse(1)
    gateway = over(Told(GOOD, ModelUnavailable("500")), budgets=DOLLAR, links=shared(budgets=purse))
    (call,) = (await gateway.ask(REQUEST, CALL)).calls
    with pytest.raises(ModelUnavailable):
        await gateway.ask(REQUEST, asked_for("e2"))
    assert purse.log == ["e1", f"settled {call.cost_usd:f}", "e2", "settled 0"]


async def test_who_waits_for_room_is_served_in_the_order_of_coming() -> None:
    purse = Purse(1)
    gateway = over(Told(wait_s=0.005), budgets=DOLLAR, links=shared(budgets=purse))
    await asyncio.gather(*(gateway.ask(REQUEST, asked_for(f"e{n}")) for n in range(20)))
    assert [entry for entry in purse.log if entry.startswith("e")] == [f"e{n}" for n in range(20)]


async def test_a_spent_budget_is_met_as_the_agent_wants_it() -> None:
    purse, cheap = Purse(1), Told()
    purse.spent = True
    gateway = over(tiers={Tier.STRONG: [Told()]}, budgets=DOLLAR, links=shared(budgets=purse))
    strong = replace(REQUEST, tier=Tier.STRONG)
    with pytest.raises(BudgetSpent, match="tenant"):
        await gateway.ask(replace(strong, on_breach=Degrade.PERSON), CALL)
    with pytest.raises(Deferred) as caught:
        await gateway.ask(replace(strong, on_breach=Degrade.WAIT), CALL)
    assert 0 < (caught.value.retry_after_s or 0) <= 24 * 3600 + 1
    both = over(tiers={Tier.STRONG: [Told()], Tier.FAST: [cheap]}, budgets=DOLLAR, links=shared(budgets=purse))
    with pytest.raises(BudgetSpent):
        await both.ask(replace(strong, on_breach=Degrade.CHEAPER), CALL)


async def test_a_tickets_own_budget_has_no_window_to_wait_for() -> None:
    purse = Purse(1)
    purse.spent = True
    budgets = {"ticket": AllowanceSettings(usd=Decimal(1))}
    with pytest.raises(BudgetSpent):
        await over(Told(), budgets=budgets, links=shared(budgets=purse)).ask(
            replace(REQUEST, on_breach=Degrade.WAIT), CALL
        )
