"""The budget link: money and tokens are set aside before a call, and what it did not use is given back."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from contracts.errors import BudgetSpent, Deferred, Outage, StoreUnavailable, SupportError
from contracts.model_ports import Budget, Budgets, Busy, Granted, ProviderCall, Spent
from contracts.models import Degrade
from llm.asking import seconds_left
from llm.chain import Ask, Link, Reply
from llm.provider import Attempt, Prompt

_log = logging.getLogger(__name__)
_LOOK_AGAIN_S = 0.05  # another process may have settled


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a scope may spend in its window: a ticket in its life, all others in a UTC day. None: no limit."""

    usd: Decimal | None = None
    tokens: int | None = None


@dataclass(slots=True)
class _Line:
    """Those who wait for the same budget in this process, in the order they came."""

    head: asyncio.Lock = field(default_factory=asyncio.Lock)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


def budgeted(budgets: Budgets, allowances: Mapping[str, Allowance]) -> Link:
    """Reserve in every budget at once, settle with what the provider said.

    Who finds room only once others settle for less waits, in the order of coming. Raises BudgetSpent, or Deferred
    where the agent waits for the window: there is no room. Outage: none came free in time.
    """
    return _Budgeted(budgets, allowances).link


@dataclass(slots=True)
class _Budgeted:
    budgets: Budgets
    allowances: Mapping[str, Allowance]
    lines: dict[tuple[str, str], _Line] = field(default_factory=dict)

    async def link(self, ask_next: Ask, prompt: Prompt) -> Reply:
        attempt = prompt.at
        self._check_request(attempt)
        budgets = budgets_of(attempt.call, self.allowances)
        if not budgets:
            return await ask_next(prompt)
        await self._reserve(prompt, attempt, budgets)
        try:
            return await ask_next(prompt)
        finally:
            await self._settle(attempt, budgets)

    def _check_request(self, attempt: Attempt) -> None:
        most, hold = self.allowances.get("request", Allowance()), attempt.hold
        if (most.usd is not None and hold.usd > most.usd) or (most.tokens is not None and hold.tokens > most.tokens):
            raise BudgetSpent("the budget of a single request is too small for this one")

    async def _reserve(self, prompt: Prompt, attempt: Attempt, budgets: list[Budget]) -> None:
        line = next((self.lines[whose] for whose in map(_whose, budgets) if whose in self.lines), None)
        if line is None:
            verdict = await self.budgets.reserve(attempt.call, attempt.hold, budgets)
            if isinstance(verdict, Busy):
                line = self.lines.setdefault(_whose(verdict.budget), _Line())
        if line is not None:
            verdict = await self._in_turn(line, prompt, attempt, budgets)
        if isinstance(verdict, Spent):
            raise breach(prompt, verdict.budget)

    async def _in_turn(self, line: _Line, prompt: Prompt, attempt: Attempt, budgets: list[Budget]) -> Granted | Spent:
        line.waiting += 1
        try:
            async with asyncio.timeout(seconds_left(prompt).timeout_s), line.head:
                while isinstance(verdict := await self.budgets.reserve(attempt.call, attempt.hold, budgets), Busy):
                    await _until_settled(line)
                return verdict
        except TimeoutError as error:
            raise Outage("a budget is held by calls that are being made") from error
        finally:
            line.waiting -= 1
            if not line.waiting:
                self.lines = {whose: other for whose, other in self.lines.items() if other is not line}

    async def _settle(self, attempt: Attempt, budgets: list[Budget]) -> None:
        made = attempt.made
        try:
            if made is None:
                await self.budgets.release(attempt.call, attempt.hold, budgets)
            else:
                tokens = made.input_tokens + made.output_tokens
                await self.budgets.settle(attempt.call, attempt.hold, budgets, usd=made.cost_usd, tokens=tokens)
        except StoreUnavailable as error:  # the hold lapses, and is settled for what the book says
            _log.warning("a hold is left to lapse: %s", error)
        for whose in map(_whose, budgets):
            if whose in self.lines:
                self.lines[whose].settled.set()


async def _until_settled(line: _Line) -> None:
    """Wait until a call of this process settled, or a moment: one of another may have."""
    line.settled.clear()
    try:
        async with asyncio.timeout(_LOOK_AGAIN_S):
            await line.settled.wait()
    except TimeoutError:
        return


def budgets_of(call: ProviderCall, allowances: Mapping[str, Allowance]) -> list[Budget]:
    """The budgets that a call counts in."""
    context, day = call.context, call.day.isoformat()
    whose = {
        "ticket": (context.ticket_id, ""),
        "customer": (context.customer_digest, day),
        "tenant": (context.tenant_id, day),
        **_whose_day(context.agent, day),
    }
    return _budgets(whose, allowances)


def budgets_of_agent(agent: str, day: date, allowances: Mapping[str, Allowance]) -> list[Budget]:
    """The budgets that every call of an agent counts in on a day, whoever it is for."""
    return _budgets(_whose_day(agent, day.isoformat()), allowances)


def _whose_day(agent: str, day: str) -> dict[str, tuple[str, str]]:
    return {"agent": (agent, day), "day": ("all", day)}


def _budgets(whose: Mapping[str, tuple[str, str]], allowances: Mapping[str, Allowance]) -> list[Budget]:
    return [
        Budget(scope, *whose[scope], allowance.usd, allowance.tokens)
        for scope, allowance in allowances.items()
        if scope in whose and whose[scope][0] and (allowance.usd is not None or allowance.tokens is not None)
    ]


def breach(prompt: Prompt, budget: Budget) -> SupportError:
    """The error for a budget without room: wait for its next window where the agent wants that and there is one."""
    if prompt.request.on_breach is Degrade.WAIT and budget.window:
        return Deferred(f"the {budget.scope} budget is spent", retry_after_s=_until_tomorrow_s())
    return BudgetSpent(f"the {budget.scope} budget is spent")


def _until_tomorrow_s() -> float:
    now = datetime.now(UTC)
    return (datetime.combine(now.date() + timedelta(days=1), time.min, UTC) - now).total_seconds() + 1


def _whose(budget: Budget) -> tuple[str, str]:
    return budget.scope, budget.scope_id
