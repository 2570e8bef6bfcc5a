"""Where a replay's models answers come from: recordings alone, or, below a budget of its own, a model where none is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from contracts.errors import SupportError
from contracts.model_ports import Budget, Busy, Entry, Granted, Hold, Nearest, ProviderCall, Recordings, Spent
from contracts.models import CallContext, ModelCall
from contracts.values import Tier
from llm.chain import Reply
from llm.gateway import Gateway
from llm.recording import is_denial, refuse_denied
from ops.models import Shared, gateway
from ops.settings import AllowanceSettings, LlmSettings, Settings
from state.answer_cache import MemoryAnswerCache
from state.breakers import MemoryBreakers
from state.journal import MemoryJournal

if TYPE_CHECKING:
    import asyncpg

    from llm.labelling import Labeller
    from ops.wiring import OpenModel


@dataclass(slots=True)
class Bill:
    """What the answers of one step came to: what they had cost when they were recorded, and what was paid anew."""

    answers: int = 0
    cost_usd: Decimal = Decimal(0)
    took_s: float = 0.0
    live_calls: int = 0
    live_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Till:
    """Knows whose bill an answer is on: many steps ask at the same time, each in a task of its own."""

    _of_task: ContextVar[Bill] = field(default_factory=lambda: ContextVar("bill"))

    def open(self) -> Bill:
        """A new bill, for what this task asks from now on."""
        bill = Bill()
        self._of_task.set(bill)
        return bill

    @property
    def bill(self) -> Bill:
        """That of the step under way."""
        return self._of_task.get()


@dataclass(frozen=True, slots=True)
class NotedRecordings:
    """Recordings that are only read, each noted on the bill. Stands for the journal too, which asks first."""

    recordings: Recordings
    till: Till

    async def find(self, digest: str) -> bytes | None:
        """The answer to a request, if it was recorded."""
        found = await self.recordings.find(digest)
        if found is not None and not is_denial(digest):
            bill = self.till.bill
            bill.answers += 1
            if paid := Reply.model_validate_json(found).paid:
                bill.cost_usd += paid.cost_usd
                bill.took_s += paid.latency_s
        return found

    async def keep(self, digest: str, call: CallContext, request: Mapping[str, Any], reply: bytes) -> None:
        """Record nothing."""

    async def nearest(self, call: CallContext) -> Nearest | None:
        """A recorded request of the same step."""
        return await self.recordings.nearest(call)

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The same answer, whatever it was asked for. Raises BudgetSpent: it was denied then."""
        await refuse_denied(self, event_id, request_digest)
        return await self.find(request_digest)


@dataclass(slots=True)
class Purse:
    """The budget of one replay's own calls, beside all those of the live system."""

    limit_usd: Decimal
    spent: Decimal = Decimal(0)
    held: dict[str, Decimal] = field(default_factory=dict)

    async def reserve(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> Granted | Busy | Spent:
        """Set aside. Raises SupportError: no more is to be spent; no agent may take that for an answer."""
        if self.spent + sum(self.held.values(), hold.usd) > self.limit_usd:
            raise SupportError(f"the replay's budget of ${self.limit_usd} has no room for this call: --live-budget")
        self.held[call.id] = hold.usd
        return Granted()

    async def settle(
        self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget], *, usd: Decimal, tokens: int
    ) -> None:
        """Note what was spent."""
        self.held.pop(call.id, None)
        self.spent += usd

    async def release(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> None:
        """Give a hold back."""
        self.held.pop(call.id, None)


@dataclass(frozen=True, slots=True)
class LiveCalls:
    """The book of one replay's own calls: each is on the bill of the step that made it."""

    till: Till

    async def open(self, call: ProviderCall, hold: Hold) -> None:
        """Write down nothing: a replay that is killed owes nobody an account."""

    async def finish(self, call: ProviderCall, made: ModelCall, answer: Entry | None) -> None:
        """Put a call on the bill."""
        bill = self.till.bill
        bill.live_calls += 1
        bill.live_usd += made.cost_usd
        bill.took_s += made.latency_s

    async def drop(self, call_id: str) -> None:
        """Forget nothing."""


def recorded_only(recordings: NotedRecordings) -> OpenModel:
    """Opens a model that gives recorded answers and nothing else."""
    return _opener(_shared(recordings, None, is_new=False), {"recordings": "replay"})


def live_where_missing(recordings: NotedRecordings, limit_usd: Decimal, *, is_new: bool) -> OpenModel:
    """Opens a model that is asked where nothing is recorded; `is_new`: where no recording is of this model."""
    purse = Purse(limit_usd)
    budgets = {"day": AllowanceSettings(usd=limit_usd)}
    return _opener(_shared(recordings, purse, is_new=is_new), {"recordings": "off", "budgets": budgets})


def _shared(recordings: NotedRecordings, purse: Purse | None, *, is_new: bool) -> Shared:
    cache = MemoryAnswerCache()
    journal = MemoryJournal() if is_new else recordings
    return Shared(journal, LiveCalls(recordings.till), cache, cache, recordings, MemoryBreakers(), purse)


def _opener(shared: Shared, changes: Mapping[str, Any]) -> OpenModel:
    @contextlib.asynccontextmanager
    async def opened(
        tiers: Iterable[Tier], settings: Settings, pool: asyncpg.Pool, labeller: Labeller | None
    ) -> AsyncIterator[Gateway]:
        llm: LlmSettings = settings.llm.model_copy(update=changes)
        async with gateway(llm, tiers, shared, labeller) as model:
            yield model

    return opened
