"""The run of a replay: the steps of every ticket, in the order in which life began them.

Tickets of different customers share no row that changes, so they run side by side.
"""

import asyncio
import heapq
import itertools
import json
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bus.backoff import retry_wait_s
from bus.outgoing import outgoing_of
from contracts.errors import Deferred, RecordingMissing, StoreUnavailable, SupportError, Transient
from contracts.events import Event, Payload, ReviewDecided, ReviewTimedOut, TicketTimedOut, caused_id
from contracts.ports import Agent, OutgoingRecord, Position, Reviews, Settlement, Stored, TicketStore
from contracts.ticket import Signature, Step, Ticket, time_out
from contracts.topics import REVIEW, topic_of
from ops.replay.answers import Bill, Till
from ops.replay.desks import Staff
from ops.replay.inputs import EXPIRY, Plan
from state.past import PastStep

AT_ONCE = 16
_RETRY_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 15.0)
_NOWHERE = Position("", -1, -1)
_OWNER = "replay"


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that a step emits, as JSON values."""

    event_id: str
    type: str
    payload: Any


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step as it came out now."""

    group: str
    event_id: str
    type: str
    by_candidate: bool
    emits: tuple[Emitted, ...]
    bill: Bill
    is_missing: bool = False  # an answer that was never recorded was asked for
    problem: str = ""  # why it came to nothing: the ticket stops there

    @property
    def key(self) -> tuple[str, str]:
        """What tells a step from every other one, in life and in a replay."""
        return self.group, self.event_id


@dataclass(slots=True)
class Rerun:
    """A ticket on its way through the desks again."""

    plan: Plan
    steps: list[NewStep] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)  # events that nobody had settled in life yet
    is_in_window: bool = False
    has_stopped: bool = False


@dataclass(slots=True)
class Queue:
    """The steps to come of tickets that may see each other's changes: one after another, by when life began them."""

    _waiting: list[tuple[datetime, int, str, Event, Rerun]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def next_at(self) -> datetime | None:
        """When its next step was begun."""
        return self._waiting[0][0] if self._waiting else None

    def push(self, began: datetime, group: str, event: Event, rerun: Rerun) -> None:
        """Add a step. Deadlines are over by now, and bound no answer."""
        event = replace(event, deadline=None)
        heapq.heappush(self._waiting, (began, next(self._numbers), group, event, rerun))

    def pop(self, before: datetime | None) -> tuple[datetime, str, Event, Rerun] | None:
        """Its next step, if that was begun before a time."""
        if not self._waiting or (before is not None and self._waiting[0][0] >= before):
            return None
        began, _, group, event, rerun = heapq.heappop(self._waiting)
        return began, group, event, rerun


@dataclass(slots=True)
class Run:
    """Runs plans. Two tickets of one `party_of` never run at the same time.

    `bring_to` makes the world around the tickets what it was at a time, and returns when it changes next, if it does.
    """

    base: Staff
    candidate: Staff
    tickets: TicketStore
    reviews: Reviews
    till: Till
    bring_to: Callable[[datetime], Awaitable[datetime | None]]
    party_of: Callable[[Plan], Hashable]

    async def run(self, plans: Sequence[Plan]) -> Mapping[str, Rerun]:
        """What becomes of the tickets now, by ticket id."""
        reruns = {plan.life.ticket.ticket_id: Rerun(plan) for plan in plans}
        queues: dict[Hashable, Queue] = {}
        for rerun in reruns.values():
            queue = queues.setdefault(self.party_of(rerun.plan), Queue())
            for given in rerun.plan.inputs:
                queue.push(given.began, given.group, given.event, rerun)
        while times := [queue.next_at for queue in queues.values() if queue.next_at is not None]:
            await self._run_until(await self.bring_to(min(times)), list(queues.values()))
        return reruns

    async def _run_until(self, change_at: datetime | None, queues: Sequence[Queue]) -> None:
        """Run every queue's steps up to the moment when the world changes."""
        waiting = iter([queue for queue in queues if queue.next_at is not None])

        async def run_some() -> None:
            for queue in waiting:
                while (step := queue.pop(change_at)) is not None:
                    began, group, event, rerun = step
                    if not rerun.has_stopped:
                        await self._step(began, group, event, rerun, queue)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(run_some())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _step(self, began: datetime, group: str, event: Event, rerun: Rerun, queue: Queue) -> None:
        rerun.is_in_window = rerun.is_in_window or event.id in rerun.plan.window
        if isinstance(event.data, ReviewDecided | ReviewTimedOut) and not await self._moved(event, event.data):
            return
        past, bill = rerun.plan.steps.get((group, event.id)), self.till.open()
        try:
            step, problem, is_missing = await self._decided(group, event, past, rerun), "", False
        except StoreUnavailable:  # no ticket's fault: the replay ends
            raise
        except SupportError as error:
            step, problem, is_missing = None, f"{type(error).__name__}: {error}", isinstance(error, RecordingMissing)
        emits = step.emits if step else ()
        emitted = tuple(
            Emitted(caused_id(event.id, group, place), payload.type_name(), json.loads(payload.model_dump_json()))
            for place, payload in enumerate(emits)
        )
        rerun.steps.append(NewStep(group, event.id, event.type, rerun.is_in_window, emitted, bill, is_missing, problem))
        rerun.has_stopped = step is None
        for place, payload in enumerate(emits):
            self._follow(began, event, caused_id(event.id, group, place), payload, rerun, queue)

    def _follow(
        self, began: datetime, cause: Event, event_id: str, payload: Payload, rerun: Rerun, queue: Queue
    ) -> None:
        """Hand an event to those who read it: when they had it in life, else at once."""
        event = Event(event_id, cause.source, cause.time, payload, causation_id=cause.id)
        for group in topic_of(payload).read_by:
            past = rerun.plan.steps.get((group, event_id))
            if past is not None and past.type == event.type:
                queue.push(max(began, past.began), group, event, rerun)
            elif (event_id, event.type) in rerun.plan.known:
                rerun.unfinished.append(event_id)
            else:
                queue.push(began, group, event, rerun)

    async def _decided(self, group: str, event: Event, past: PastStep | None, rerun: Rerun) -> Step:
        """Decide and store a step. A deadline that had passed in life passes now: no clock is asked."""
        agent: Agent | None = (self.candidate if rerun.is_in_window else self.base).get(group)
        life = rerun.plan.life.ticket
        ticket = await self.tickets.load(event.ticket_id)
        ticket = ticket or Ticket(ticket_id=life.ticket_id, tenant_id=life.tenant_id)
        by = Signature(group, agent.version if agent else "")
        if agent is None or group == EXPIRY or _timed_out(past):
            step = time_out(ticket, event, by)
        else:
            step = await _handled(agent, ticket, event)
        settlement = Settlement(group, event, _NOWHERE, step.ticket, outgoing_of(step, event, by))
        [stored] = await self.tickets.settle([settlement], _OWNER)
        if not isinstance(stored, Stored):
            raise stored or SupportError(f"the step of {group} for {event.id} was stored before")
        return step

    async def _moved(self, event: Event, move: ReviewDecided | ReviewTimedOut) -> bool:
        """Let a person do what they did. False: now nobody asks them."""
        review = await self.reviews.find(move.review_id)
        if review is None or not review.is_open:
            return False
        record = OutgoingRecord(event.id, event.type, event.ticket_id, REVIEW.name, b"", ())
        return await self.reviews.move(review, move, record)


async def _handled(agent: Agent, ticket: Ticket, event: Event) -> Step:
    """The agent's step; a model that is overloaded for a moment is asked again."""
    attempts = 0
    while True:
        try:
            return await agent.handle(ticket, event)
        except Transient as error:
            attempts += 1
            wait_s = retry_wait_s(_RETRY_DELAYS_S, attempts, error)
            if wait_s is None or isinstance(error, Deferred | StoreUnavailable):
                raise
            await asyncio.sleep(wait_s)


def _timed_out(past: PastStep | None) -> bool:
    return past is not None and any(event.type == TicketTimedOut.type_name() for event in past.emits)
