"""The relay: publishes what is stored, in order within a ticket and topic, and notes it in the outbox afterwards."""

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from bus.publisher import Sent
from bus.tenure import Tenure
from contracts.errors import BusUnavailable, ContractBroken, StoreUnavailable
from contracts.ports import Leases, Outbox, OutgoingRecord, Position, Published, StoredRecord

_log = logging.getLogger(__name__)
_AT_ONCE = 500  # records a call
_MARKS_AT_ONCE = 2000
_ENOUGH = 5000  # rows in hand: no more are taken over
_FAREWELL_S = 2.0  # for the last marks, and to give the leases back

Stripe = tuple[str, int | None]
"""What is published in one order: a stripe of a topic, or a topic whose stripes are not known yet."""


class Publishing(Protocol):
    """What the relay needs of `Publisher`."""

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> list[Sent]:
        """Publish many records, those of one ticket in order; what became of each stands at its place."""

    def stripe(self, topic: str, ticket_id: str) -> int | None:
        """Which of a topic's independent streams a ticket belongs to; None when that is not known yet."""


@dataclass(eq=False, slots=True)
class Line:
    """Rows of one stripe, oldest first; one call for the first of them is on its way at a time."""

    stripe: Stripe
    rows: deque[StoredRecord] = field(default_factory=deque)


class Relay:
    """Publishes the rows its worker stores, and those that dead workers left. Each at least once.

    A row is marked some time after it was acknowledged: a crash in between is a second copy with the same event
    id. The relay works under leases: frozen for longer than they last, it forgets its rows, which may be in
    other hands by now, and takes what is left of them anew under other names.
    """

    def __init__(
        self,
        outbox: Outbox,
        leases: Leases,
        publisher: Publishing,
        owner: str,
        *,
        lease_s: float = 15.0,
        renew_s: float = 3.0,
        sweep_s: float = 1.0,
        mark_s: float = 0.02,
        limit: int = 500,
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._tenure = Tenure(leases, owner, lease_s)
        self._renew_s = renew_s
        self._sweep_s = sweep_s
        self._mark_s = mark_s  # for so long, acknowledged rows gather for one statement
        self._limit = limit  # rows a take-over
        self._lines: dict[Stripe, Line] = {}  # those with rows
        self._failing: set[Stripe] = set()
        self._held: set[int] = set()  # rows that wait, are on their way, or are not marked yet
        self._published: deque[Published] = deque()  # not marked yet
        self._to_mark = asyncio.Event()
        self._nothing_held = asyncio.Event()
        self._nothing_held.set()
        self._renewed = asyncio.Event()
        self._to_sweep = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def owner(self) -> str:
        """The name to store rows under; another one after the relay was frozen for longer than its lease."""
        return self._tenure.owner

    @property
    def backlog(self) -> int:
        """How many rows wait, are on their way, or are acknowledged and not marked yet."""
        return len(self._held)

    def put(self, records: Sequence[StoredRecord], owner: str | None = None) -> None:
        """Publish rows that were stored under the name `owner`, behind those that wait.

        When the relay has given that name up since, whoever takes the rows over publishes them.
        """
        if owner is None or owner == self._tenure.owner:
            self._queue(records)

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every row is published and marked; False when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._nothing_held.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Publish, mark, sweep and keep the leases until cancelled; then give the leases back.

        Rows that are not published by then are free for others. Run it once.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for line in self._lines.values():
                    tasks.create_task(self._drain(line))
                tasks.create_task(self._keep_tenure())
                tasks.create_task(self._sweep())
                tasks.create_task(self._mark())
        finally:
            self._tasks = None
            await self._part()

    # --- publishing ---------------------------------------------------------------------------------------

    def _queue(self, rows: Sequence[StoredRecord]) -> None:
        for row in rows:
            if row.outbox_id in self._held:  # a settlement tells its rows again when its answer got lost
                continue
            self._held.add(row.outbox_id)
            self._nothing_held.clear()
            self._line_of(row.record).rows.append(row)

    def _line_of(self, record: OutgoingRecord) -> Line:
        """The record's line, with a task that drains it."""
        stripe: Stripe = (record.topic, None)
        if stripe not in self._lines:  # while it is there, it may hold earlier rows of the ticket
            stripe = (record.topic, self._publisher.stripe(record.topic, record.ticket_id))
        if stripe not in self._lines:
            line = self._lines[stripe] = Line(stripe)
            if self._tasks is not None:
                self._tasks.create_task(self._drain(line))
        return self._lines[stripe]

    async def _drain(self, line: Line) -> None:
        """Publish a line's rows, oldest first, until none waits or they are forgotten. What failed goes first again."""
        failures = 0
        while line.rows:
            if not self._tenure.is_sure():
                self._renewed.clear()
                await self._renewed.wait()
                continue
            rows = list(itertools.islice(line.rows, _AT_ONCE))
            left = self._landed(rows, await self._publisher.publish_batch([row.record for row in rows]))
            if line.rows:
                for _ in rows:
                    line.rows.popleft()
                line.rows.extendleft(reversed(left))
            failures = failures + 1 if left else 0
            self._note(line.stripe, failing=bool(left))
            if left:
                await asyncio.sleep(_pause_s(failures))
        if self._lines.get(line.stripe) is line:
            del self._lines[line.stripe]
        self._failing.discard(line.stripe)

    def _landed(self, rows: Sequence[StoredRecord], sent: Sequence[Sent]) -> list[StoredRecord]:
        """Note what became of rows; returns those that are not acknowledged."""
        left: list[StoredRecord] = []
        for row, result in zip(rows, sent, strict=True):
            match result:
                case Position():
                    self._published.append(Published(row.outbox_id, result))
                case BusUnavailable():
                    left.append(row)
                case ContractBroken():  # it stays in the outbox: nothing is dropped, and the others go on
                    _log.error("outbox row %d cannot be published: %s", row.outbox_id, result)
                    self._let_go([row.outbox_id])
                case _:
                    assert_never(result)
        if self._published:
            self._to_mark.set()
        return left

    def _note(self, stripe: Stripe, *, failing: bool) -> None:
        """Say once that a topic takes no records, and once that it does again."""
        if failing == (stripe in self._failing):
            return
        others = any(topic == stripe[0] for topic, _ in self._failing - {stripe})
        (self._failing.add if failing else self._failing.discard)(stripe)
        if failing and not others:
            _log.warning("records for %s wait: Kafka does not acknowledge them", stripe[0])
        elif not others:
            _log.info("records for %s are published again", stripe[0])

    # --- marking ------------------------------------------------------------------------------------------

    async def _mark(self) -> None:
        """Note acknowledged rows in the outbox, many in a statement, however long the store is away."""
        failures = 0
        while True:
            await self._to_mark.wait()
            await asyncio.sleep(self._mark_s)
            try:
                await self._mark_first()
            except StoreUnavailable as error:
                failures += 1
                if failures == 1:
                    _log.warning("published rows cannot be marked: %s", error)
                await asyncio.sleep(_pause_s(failures))
            else:
                failures = 0

    async def _mark_first(self) -> None:
        rows = list(itertools.islice(self._published, _MARKS_AT_ONCE))
        await self._outbox.mark_published(rows)
        for _ in rows:
            self._published.popleft()
        self._let_go([row.outbox_id for row in rows])
        if not self._published:
            self._to_mark.clear()

    def _let_go(self, outbox_ids: Sequence[int]) -> None:
        self._held.difference_update(outbox_ids)
        if not self._held:
            self._nothing_held.set()

    # --- leases and taking over ---------------------------------------------------------------------------

    async def _keep_tenure(self) -> None:
        failures = 0
        while True:
            try:
                if not await self._tenure.renew():
                    await self._start_over()
            except StoreUnavailable as error:
                failures += 1
                if failures == 1:
                    _log.warning("a worker's lease cannot be renewed: %s", error)
                await asyncio.sleep(_pause_s(failures))
            else:
                failures = 0
                self._renewed.set()
                await asyncio.sleep(self._renew_s)

    async def _start_over(self) -> None:
        """Forget rows that may be in other hands, and take what is left of them anew."""
        _log.warning("a worker was away for longer than its lease: its unpublished records are taken anew")
        for line in self._lines.values():
            self._let_go([row.outbox_id for row in line.rows])
            line.rows.clear()
        self._lines = {}
        self._to_sweep.set()
        await self._tenure.replace()

    async def _sweep(self) -> None:
        """Take over what dead workers left, again and again."""
        failures = 0
        while True:
            try:
                if failures:  # what the lost answer brought belongs to a name that is given up
                    await self._tenure.replace_sweeper()
                taken = await self._take_over()
            except StoreUnavailable as error:
                failures += 1
                if failures == 1:
                    _log.warning("the outbox cannot be swept: %s", error)
                await asyncio.sleep(_pause_s(failures))
            else:
                failures = 0
                if taken < self._limit:
                    await self._until_swept_again()

    async def _take_over(self) -> int:
        while not self._tenure.is_sure():
            self._renewed.clear()
            await self._renewed.wait()
        self._to_sweep.clear()
        if self.backlog > _ENOUGH:  # others may have more room
            return 0
        name = self._tenure.sweeper
        taken = await self._outbox.take_over(name, limit=self._limit)
        if name != self._tenure.sweeper:  # given up meanwhile, and the rows with it
            return self._limit
        if taken:
            _log.info("taken over: %d records that were nobody's", len(taken))
            self._queue(taken)
        return len(taken)

    async def _until_swept_again(self) -> None:
        try:
            async with asyncio.timeout(random.uniform(0.8, 1.2) * self._sweep_s):
                await self._to_sweep.wait()
        except TimeoutError:
            return

    async def _part(self) -> None:
        """Mark what is published and give the leases back, if the store is there."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                while self._published:
                    await self._mark_first()
                await self._tenure.end()
        except (StoreUnavailable, TimeoutError) as error:
            _log.warning("a worker's leases end by themselves, they cannot be given back: %s", error)


def _pause_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row, jittered; never more than one."""
    return random.uniform(0.5, 1.0) * min(1.0, 0.05 * 2.0 ** min(failures, 10))
