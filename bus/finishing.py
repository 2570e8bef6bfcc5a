"""Finishing: what becomes of a delivery once its handler has spoken, until its lane is free."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, assert_never

from bus.admission import Admission
from bus.backoff import outlast, retry_wait_s
from bus.dead_letters import DeadLetters
from bus.delivery import Delivery
from bus.engine import Engine
from bus.outcome import DeadLetter, Decided, Done, Duplicate, Later, Outcome
from bus.parking import Scheduler
from bus.relay import Relay
from bus.settling import Settling
from contracts.errors import SupportError, VersionConflict
from contracts.events import Event
from contracts.letters import NOT_THE_TICKETS_OWN
from contracts.ports import Parking, Settled, Settlement, Stored
from contracts.ticket import Ticket

_CONFLICTS = 10  # how often a step is decided again at once, on fresh state


class Finishing:
    """Stores what was decided, parks what failed, buries what cannot be handled; then frees the lane."""

    def __init__(
        self,
        group: str,
        engine: Engine,
        admission: Admission,
        settling: Settling,
        relay: Relay,
        parking: Parking,
        scheduler: Scheduler,
        dead_letters: DeadLetters,
        *,
        retry_delays_s: Sequence[float],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._group = group
        self._engine = engine
        self._admission = admission
        self._settling = settling
        self._relay = relay
        self._parking = parking
        self._scheduler = scheduler
        self._dead_letters = dead_letters
        self._retry_delays_s = retry_delays_s
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[str] = set()  # tickets that are being parked or blocked

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Take what a handler returned."""
        match outcome:
            case Decided():
                self._settling.put(delivery, outcome.settlement)
            case Done() | Duplicate():
                self._settled(delivery)
            case Later():
                self._leave(delivery, self._park(delivery, outcome))
            case DeadLetter():
                self._leave(delivery, self._bury(delivery, outcome))
            case _:
                assert_never(outcome)

    def stored(self, delivery: Delivery, settlement: Settlement, result: Settled | Exception, owner: str) -> None:
        """Take what became of a step at the store, where it was stored under the owner's name."""
        match result:
            case Stored():
                self._relay.put(result.records, owner)
                self._settled(delivery, settlement, result.version)
            case None:
                self._settled(delivery, settlement)
            case VersionConflict():
                self._decide_again(delivery, result)
            case _:
                self._leave(delivery, self._bury(delivery, DeadLetter(result)))

    def settled_unrun(self, delivery: Delivery) -> None:
        """A delivery that came to no lane is done with."""
        self._engine.settled_unrun(delivery)
        self._released(delivery)

    def is_leaving(self, ticket_id: str) -> bool:
        """Whether a ticket is being parked or blocked: what comes to its lane now goes to its queue with the rest."""
        return ticket_id in self._leaving

    async def cancel(self) -> None:
        """Give up what is being parked or buried; its records come again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def _settled(self, delivery: Delivery, settlement: Settlement | None = None, version: int | None = None) -> None:
        """Free the lane, and tell those who might otherwise handle the event, or its ticket's old state."""
        if settlement is not None:
            self._tell(delivery, settlement, version)
        self._engine.settled(delivery)
        self._released(delivery)

    def _tell(self, delivery: Delivery, settlement: Settlement, version: int | None) -> None:
        behind, looking = delivery.next_in_lane, self._admission.looking
        if behind is None and not looking:
            return
        ticket, event_id = settlement.ticket, settlement.event.id
        now: Ticket | None = None if version is None else ticket.model_copy(update={"version": version})
        if behind is not None:
            behind.ticket = now
            lane = self._engine.lanes.get(delivery.key)
            if lane is not None:
                lane.remember(event_id)
        if looking:
            self._admission.noticed_settled(event_id, ticket.ticket_id, now)

    def _released(self, delivery: Delivery) -> None:
        if delivery.parked is not None:
            self._start(self._scheduler.settled(delivery.parked))

    def _decide_again(self, delivery: Delivery, conflict: VersionConflict) -> None:
        delivery.ticket = None
        delivery.conflicts += 1
        if delivery.conflicts <= _CONFLICTS:
            self._engine.again(delivery)
            return
        delivery.conflicts = 0
        delivery.attempts += 1
        wait_s = retry_wait_s(self._retry_delays_s, delivery.attempts, conflict)
        self.finish(delivery, DeadLetter(conflict) if wait_s is None else Later(conflict, wait_s))

    async def _park(self, delivery: Delivery, later: Later) -> None:
        await outlast(
            lambda: self._parking.park(
                self._group,
                delivery.event.ticket_id,
                delivery.record,
                wait_s=later.wait_s,
                attempts=delivery.attempts,
                error=_named(later.error),
            )
        )
        await self._left(delivery)

    async def _bury(self, delivery: Delivery, letter: DeadLetter) -> None:
        await self._dead_letters.write(delivery, letter)
        if not isinstance(delivery.decoded, Event):
            self._settled(delivery)
            return
        if isinstance(letter.error, NOT_THE_TICKETS_OWN):
            await self._queue_those_behind(delivery)  # should the ticket be parked all the same
            self._released(delivery)
            return
        await outlast(
            lambda: self._parking.block(
                self._group,
                delivery.event.ticket_id,
                delivery.record,
                attempts=delivery.attempts,
                error=_named(letter.error),
            )
        )
        await self._left(delivery)

    async def _left(self, delivery: Delivery) -> None:
        """The delivery's record waits in the store now, with its tries: it is out of our hands."""
        if delivery.parked is not None:
            self._scheduler.parked_again(delivery.parked)
        await self._queue_those_behind(delivery)

    async def _queue_those_behind(self, delivery: Delivery) -> None:
        """Where the ticket is parked, what waits in its lane goes behind it, in order. Then the lane is free."""
        ticket_id = delivery.event.ticket_id
        free: list[Delivery] = []  # of those, what is to be handled after all: somebody freed the ticket meanwhile,
        # or it is the ticket's first record itself, resumed by now
        while behind := self._engine.lanes.cut_behind(delivery):
            free += [one for one in behind if one.parked is not None]
            waiting = [one for one in behind if one.parked is None and not (one.assignment and one.assignment.over)]
            followers = [(ticket_id, one.record) for one in waiting]
            taken = await outlast(functools.partial(self._parking.queue, self._group, followers))
            for one, queued in zip(waiting, taken, strict=True):
                if queued:
                    self.settled_unrun(one)
                else:
                    one.ticket = None
                    free.append(one)
        self._leaving.discard(ticket_id)
        self._admission.noticed_parked(ticket_id)  # what comes from now on asks the store
        self._engine.settled(delivery)
        self._engine.offer(free)

    def _leave(self, delivery: Delivery, work: Coroutine[Any, Any, None]) -> None:
        """Have a delivery leave its lane for the store or a topic, with what waits behind it."""
        if isinstance(delivery.decoded, Event):
            self._leaving.add(delivery.event.ticket_id)
        self._start(work)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


def _named(error: Exception) -> str:
    """What is kept with a parked ticket: our own errors speak without a customer's words, a bug's might not."""
    return f"{type(error).__name__}: {error}" if isinstance(error, SupportError) else type(error).__name__
