"""The engine below any store: a topic's records, each key's in order, many at once, to a handler."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from bus.backoff import outage_wait_s
from bus.connection import BROKEN, KafkaConnection
from bus.delivery import Delivery
from bus.frontier import Frontiers
from bus.handler import Handler
from bus.identity import Identity
from bus.inflight import Finish, InFlight
from bus.lanes import Lanes
from bus.membership import Membership, new_consumer
from bus.options import WorkerOptions
from bus.outcome import DeadLetter, Decided, Later, Outcome
from bus.watchdog import Watchdog
from contracts.errors import EngineStuck

_log = logging.getLogger(__name__)
_STABLE_AFTER_S = 60.0  # a membership that lasted so long failed anew, not again

Admit = Callable[[Sequence[Delivery]], None]
"""Takes deliveries in hand, in their order; each comes to `Engine.offer` or `Engine.settled_unrun` later."""


class Engine:
    """A member of a consumer group that handles what it is assigned, until stopped. Run it once.

    With a handler alone, what it returns as DONE counts as settled; `admit` and `finish` put a store in between.
    """

    def __init__(
        self,
        handle: Handler,
        connection: KafkaConnection,
        *,
        topic: str,
        group: str,
        options: WorkerOptions | None = None,
        admit: Admit | None = None,
        finish: Finish | None = None,
        held_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.started = asyncio.Event()  # the group has dealt out its partitions, perhaps none to us
        self.lanes = Lanes()
        self.frontiers = Frontiers()
        self.settled_count = 0  # deliveries that ran and are done with
        self._handle = handle
        self._connection = connection
        self._topic = topic
        self._group = group
        self._options = options or WorkerOptions()
        self._admit = admit or self.offer
        self._finish = finish or self._settled_as
        self._held_up = held_up
        self._limit = self._options.lanes
        self._paused = False
        self._stopping = asyncio.Event()
        self._leaving = asyncio.Event()  # the group, or already out of it
        self._going_on = asyncio.Event()  # set while not to stay out: a member, or at the end
        self._going_on.set()
        self._is_out = False
        self._ended = asyncio.Event()  # a delivery did
        self._in_flight: InFlight | None = None
        self._watchdog = Watchdog(self._options.stalled_after_s)
        self._identity = Identity(topic)

    def stop(self) -> None:
        """Ask `run` to finish what is in flight, commit, leave the group and return."""
        self._stopping.set()
        self._leaving.set()
        self._going_on.set()

    @property
    def stopping(self) -> asyncio.Event:
        """Set when it was asked to stop."""
        return self._stopping

    async def run(self) -> None:
        """Handle records until `stop`. An outage of Kafka is waited out.

        Raises EngineStuck: nothing comes from Kafka though there is something, also with a new client.
        What escapes a handler as Misconfigured ends it too, in an ExceptionGroup.
        """
        async with asyncio.TaskGroup() as tasks:
            self._in_flight = InFlight(
                self.lanes,
                self._handle,
                self._finish,
                limit=self._limit,
                tasks=tasks,
                held_up=self._is_held_up,
            )
            await self._keep_membership()
            await self._in_flight.cancel()

    # --- what ops may ask for -----------------------------------------------------------------------------

    def pause(self) -> None:
        """Start no handler and fetch nothing until `resume`; what runs ends, the partitions stay ours."""
        self._paused = True

    def resume(self) -> None:
        """Take records again."""
        self._paused = False
        self.wake()

    def leave(self) -> None:
        """Finish what is in flight, commit, leave the group, and stay out of it until `join`."""
        if not self._stopping.is_set():
            self._leaving.set()
            self._going_on.clear()

    def join(self) -> None:
        """Be a member of the group again."""
        if not self._stopping.is_set():
            self._leaving.clear()
            self._going_on.set()
            self.wake()

    def resize(self, lanes: int) -> None:
        """Let so many handlers be in flight at once."""
        self._limit = lanes
        if self._in_flight is not None:
            self._in_flight.resize(lanes)

    @property
    def limit(self) -> int:
        """How many handlers may be in flight at once."""
        return self._limit

    @property
    def paused(self) -> bool:
        """Whether no handler is to start."""
        return self._paused

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out of the group, or out."""
        return self._leaving.is_set()

    @property
    def is_out(self) -> bool:
        """Whether it left the group and waits to join it again."""
        return self._is_out

    # --- what a delivery goes through ---------------------------------------------------------------------

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Take fetched deliveries in hand."""
        self._admit(deliveries)

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Put deliveries into their lanes."""
        offer = self.lanes.offer
        for delivery in deliveries:
            offer(delivery)
        self.wake()

    def wake(self) -> None:
        """Start what can run."""
        if self._in_flight is not None:
            self._in_flight.wake()

    def settled(self, delivery: Delivery) -> None:
        """A delivery that ran is done with: its lane is free, its offset need not be read again."""
        assignment = delivery.assignment
        if assignment is not None:
            assignment.settled(delivery.index, delivery.size_bytes)
        self.lanes.done(delivery)
        self.settled_count += 1
        self._ended.set()
        if self._in_flight is not None and self.lanes.ready:
            self._in_flight.wake()

    def settled_unrun(self, delivery: Delivery) -> None:
        """A delivery that came to no lane is done with."""
        if delivery.assignment is not None:
            delivery.assignment.settled(delivery.index, delivery.size_bytes)

    def again(self, delivery: Delivery) -> None:
        """Let a delivery that ran run once more."""
        self.lanes.again(delivery)
        self._ended.set()
        self.wake()

    def _settled_as(self, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, DeadLetter | Later | Decided):
            _log.error("nothing is stored here: %s stays unsettled, its lane busy", delivery.position)
            return
        self.settled(delivery)

    # --- letting go ---------------------------------------------------------------------------------------

    def close(self, partitions: Collection[int]) -> None:
        """Start nothing more of these partitions, and forget what waits."""
        self.frontiers.close(partitions)
        self.lanes.drop(self._is_for_others)

    def _is_for_others(self, delivery: Delivery) -> bool:
        """What is resumed belongs to no partition: it is ours until we leave, and due for whoever works on then."""
        return self.leaving if delivery.assignment is None else delivery.assignment.over

    async def drained(self, partitions: Collection[int] | None, timeout_s: float) -> bool:
        """Wait until nothing of these partitions runs, or nothing at all (None); False when the time was too short."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.lanes.running if partitions is None else self.frontiers.running(partitions):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    # --- membership ---------------------------------------------------------------------------------------

    async def _keep_membership(self) -> None:
        """Be a member of the group until stopped, with a new client whenever one breaks."""
        failures, one_by_one = 0, False
        while not self._stopping.is_set():
            if self._leaving.is_set():
                await self._until_joining()
                continue
            began = time.monotonic()
            try:
                await self._membership(one_by_one).run(self._leaving)
            except UnicodeDecodeError:
                # What aiokafka had read when it met the record is lost to this client: a new one reads it again.
                _log.warning("looking for a record that cannot be read")
                one_by_one = True
            except EngineStuck:
                raise
            except BROKEN as error:
                failures = failures + 1 if time.monotonic() - began < _STABLE_AFTER_S else 1
                _log.warning("replacing a Kafka consumer that failed: %s: %s", type(error).__name__, error)
                await self._sleep_unless_stopped(outage_wait_s(failures))

    async def _until_joining(self) -> None:
        self._is_out = True
        self.started.set()  # out of the group is where it is to be
        await self._going_on.wait()
        self._is_out = False

    def _is_held_up(self) -> bool:
        return self._paused or self._leaving.is_set() or self._held_up()

    def _membership(self, one_by_one: bool) -> Membership:
        consumer = new_consumer(self._connection, self._group, self._options)
        return Membership(
            consumer, self._topic, self, self._options, self._watchdog, self._identity, one_by_one=one_by_one
        )

    async def _sleep_unless_stopped(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), wait_s)
        except TimeoutError:
            return
