"""One membership in a consumer group: a client from joining to leaving."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from bus.closing import close_consumer, dead_task
from bus.committing import Committer
from bus.connection import KafkaConnection
from bus.delivery import Delivery, size_of
from bus.frontier import Frontiers
from bus.identity import Identity
from bus.offset_fetch import heed_refusals
from bus.options import WorkerOptions
from bus.static_member import under_own_name
from bus.unreadable import unreadable_at
from bus.watchdog import Watchdog
from contracts.errors import Undecodable

_Found = Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]

_log = logging.getLogger(__name__)
_REBALANCE_TIMEOUT_S = 30.0  # in which every member must have let go and joined again
_LONGEST_DRAIN_AT_REVOKE_S = 10.0
_REQUEST_TIMEOUT_S = 40.0  # above the rebalance timeout: joining a group is a request too
_LONGEST_POLL_S = 2 * _REBALANCE_TIMEOUT_S  # a poll waits until a rebalance is over
_POLL_MS = 200
_RECORDS_A_POLL = 1000  # by so many a partition overruns its intake before it is paused; a fetch holds far more
_FETCH_BYTES = 4 * 1024 * 1024  # of one partition at once; above any topic's largest record
_WATCH_EVERY_S = 1.0


class Hands(Protocol):
    """Who takes what a membership finds."""

    started: asyncio.Event
    frontiers: Frontiers

    @property
    def paused(self) -> bool:
        """Whether nothing is to be fetched."""

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Take fetched deliveries in hand."""

    def wake(self) -> None:
        """Start what can run."""

    def close(self, partitions: Collection[int]) -> None:
        """Start nothing more of these partitions, and forget what waits."""

    async def drained(self, partitions: Collection[int] | None, timeout_s: float) -> bool:
        """Wait until nothing of these partitions runs, or nothing at all (None)."""


class Membership:
    """Takes records from Kafka and commits what is settled. Never waits for a handler, never stops polling."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        hands: Hands,
        options: WorkerOptions,
        watchdog: Watchdog,
        identity: Identity,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._hands = hands
        self._frontiers = hands.frontiers
        self._options = options
        self._one_by_one = one_by_one
        self._committer = Committer(topic, hands.frontiers)
        self._watchdog = watchdog
        self._identity = identity
        self._watched_at_s = time.monotonic()
        self._draining = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Join, take records until `stopping`, finish what is in flight, commit, leave.

        Raises KafkaError, TimeoutError or OSError: the client broke. What it had taken comes again.
        UnicodeDecodeError: there is a record that it cannot read; only a membership that takes records
        `one_by_one` can tell which one, and steps over it. Misconfigured: its instance id is another's too.
        """
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await self._consumer.start()
            heed_refusals(self._consumer)
            with under_own_name(self._consumer, self._options.instance_id):
                self._consumer.subscribe([self._topic], listener=_Rebalances(self))
                await self._poll_until(stopping)
        finally:
            await self._leave()

    async def let_go_of(self, partitions: Collection[int]) -> None:
        """Give partitions back: drop what waits, let what runs end for a while, commit, end their epochs.

        What still runs then goes on; its result is stored, but moves no frontier.
        """
        self._hands.close(partitions)
        await self._hands.drained(partitions, min(self._options.drain_timeout_s, _LONGEST_DRAIN_AT_REVOKE_S))
        await self._committer.commit(self._consumer)
        self._frontiers.end(partitions)

    def assigned(self) -> None:
        """Note that the group has dealt out its partitions."""
        self._watchdog.forget()
        self._hands.started.set()

    async def _poll_until(self, stopping: asyncio.Event) -> None:
        polling = asyncio.create_task(self._poll())
        committing = asyncio.create_task(self._committer.run(self._consumer, self._options.commit_interval_s))
        asking = asyncio.create_task(self._identity.keep_asking(self._consumer))
        stopped = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({polling, committing, asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():  # also when it was cleared again since
                await self._drain()
            else:
                await asyncio.gather(polling, committing, asking)  # one of them failed
        finally:
            await _ended(polling, committing, asking, stopped)

    async def _drain(self) -> None:
        """Finish what is in flight, still polling: a member that does not poll blocks its whole group."""
        self._draining = True
        self._hands.close(self._frontiers.partitions())
        if not await self._hands.drained(None, self._options.drain_timeout_s):
            _log.warning("stopping with deliveries in flight; they come again elsewhere")

    async def _leave(self) -> None:
        partitions = self._frontiers.partitions()
        self._hands.close(partitions)
        await self._committer.commit(self._consumer)
        self._frontiers.end(partitions)
        await close_consumer(self._consumer)

    async def _poll(self) -> None:
        while True:
            async with asyncio.timeout(_LONGEST_POLL_S):
                found = await self._polled()
            if self._identity.is_another():
                await self._begin_anew()
            elif not self._draining:
                self._take(found)
            self._hands.wake()  # what was held up by a backlog may go on
            self._regulate()
            self._watch()
            await asyncio.sleep(0)  # with records in its buffer `getmany` returns without letting others run

    async def _begin_anew(self) -> None:
        """Read what is in hand from its beginning: the topic has the old one's name, and offsets of its own.

        What was committed meanwhile was the old one's too. Done again at the next poll until that is set back.
        """
        partitions, begun = self._consumer.assignment(), self._frontiers.partitions()
        self._hands.close(begun)
        self._frontiers.end(begun)
        for partition in partitions:
            self._consumer.seek(partition, 0)
        if partitions and await self._committer.set_back(self._consumer, partitions):
            self._identity.accept()
            _log.warning("%s was made anew: it is read from its beginning", self._topic)

    async def _polled(self) -> _Found:
        found: _Found = {}
        most = 1 if self._one_by_one else _RECORDS_A_POLL
        try:
            found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=most)
        except UnicodeDecodeError:
            if not self._one_by_one:
                raise
            await self._step_over_unreadable()
        return found

    async def _step_over_unreadable(self) -> None:
        """Take the records that stand next and cannot be read as what they are: dead letters to be."""
        stepped = False
        for partition in self._consumer.assignment() - self._consumer.paused():
            record = await unreadable_at(self._consumer, partition, _FETCH_BYTES)
            if record is not None:
                self._consumer.seek(partition, record.offset + 1)
                [delivery] = self._begun(partition.partition, [record])
                delivery.read_as(Undecodable("a header name is not UTF-8"))
                self._hands.take([delivery])
                stepped = True
        if not stepped:
            raise KafkaError("a record cannot be read, and cannot be found either")

    def _take(self, found: _Found) -> None:
        for partition, records in found.items():
            self._hands.take(self._begun(partition.partition, records))

    def _begun(self, partition: int, records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Delivery]:
        assignment = self._frontiers.of(partition, records[0].offset)
        begin = assignment.begin
        deliveries = []
        for record in records:
            size = size_of(record)
            key = record.key if record.key is not None else (partition, record.offset)  # no key: no order to keep
            deliveries.append(Delivery(record, key, assignment, begin(record.offset, size), size))
        return deliveries

    def _regulate(self) -> None:
        """Pause partitions that have too much in hand, resume those that have room again."""
        intake, paused = self._options.intake, self._consumer.paused()
        for partition in self._consumer.assignment():
            held = self._frontiers.current(partition.partition)
            if self._draining or self._hands.paused or (held is not None and intake.is_full(held)):
                if partition not in paused:
                    self._consumer.pause(partition)
            elif partition in paused and (held is None or intake.has_room(held)):
                self._consumer.resume(partition)

    def _watch(self) -> None:
        now_s = time.monotonic()
        if now_s - self._watched_at_s < _WATCH_EVERY_S:
            return
        self._watched_at_s = now_s
        if dead := dead_task(self._consumer):
            raise KafkaError(f"the client's {dead} has ended")
        if not self._consumer.partitions_for_topic(self._topic):
            # It was deleted. aiokafka would look again at metadata_max_age, however soon it is made anew.
            self._consumer._client.force_metadata_update()
        leader_of = self._consumer._client.cluster.leader_for_partition  # one without a leader no client can fetch
        waiting = self._consumer.assignment() - self._consumer.paused()
        fetching = {partition for partition in waiting if leader_of(partition) not in (None, -1)}
        self._watchdog.look({p.partition: self._consumer.last_poll_timestamp(p) for p in fetching}, now_s)


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs inside aiokafka's coordination while polling stands still, so it never waits for a poll."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        _log.info("partitions revoked: %s", sorted(p.partition for p in revoked))
        await self._membership.let_go_of([p.partition for p in revoked])

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        _log.info("partitions assigned: %s", sorted(p.partition for p in assigned))
        self._membership.assigned()


def new_consumer(connection: KafkaConnection, group: str, options: WorkerOptions) -> AIOKafkaConsumer:
    """A member of a group to be, which neither subscribed nor started yet."""
    return AIOKafkaConsumer(
        **connection.client_options(),
        group_id=group,
        group_instance_id=options.instance_id,
        partition_assignment_strategy=(StickyPartitionAssignor,),  # a restart moves no more than it must
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=_FETCH_BYTES,
        request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
        rebalance_timeout_ms=int(_REBALANCE_TIMEOUT_S * 1000),
        session_timeout_ms=int(options.session_timeout_s * 1000),
        heartbeat_interval_ms=int(min(options.session_timeout_s / 4, 1.0) * 1000),
        metadata_max_age_ms=30_000,  # how soon new partitions are found
    )


async def _ended(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, KafkaError, TimeoutError, OSError):
            await task
