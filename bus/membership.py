"""One membership in a consumer group: a client from joining to leaving."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from bus.closing import close_consumer
from bus.codec import Codec
from bus.committing import Committer
from bus.connection import KafkaConnection
from bus.delivery import Delivery, Record
from bus.frontier import Frontiers
from bus.inflight import InFlight
from bus.options import WorkerOptions
from bus.unreadable import unreadable_at
from bus.watchdog import Watchdog
from contracts.errors import Undecodable
from contracts.events import Event
from contracts.topics import Topic

_Found = Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]

_log = logging.getLogger(__name__)
_REBALANCE_TIMEOUT_S = 30.0  # in which every member must have let go and joined again
_LONGEST_DRAIN_AT_REVOKE_S = 10.0
_REQUEST_TIMEOUT_S = 40.0  # above the rebalance timeout: joining a group is a request too
_LONGEST_POLL_S = 2 * _REBALANCE_TIMEOUT_S  # a poll waits until a rebalance is over
_POLL_MS = 200
_POLL_RECORDS = 500
_FETCH_BYTES = 4 * 1024 * 1024  # of one partition at once; above any topic's largest record


class Membership:
    """Takes records from Kafka and commits what is settled. Never waits for a handler, never stops polling."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: Topic,
        in_flight: InFlight,
        frontiers: Frontiers,
        options: WorkerOptions,
        assigned: asyncio.Event,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._in_flight = in_flight
        self._frontiers = frontiers
        self._options = options
        self._assigned = assigned
        self._one_by_one = one_by_one
        self._codec = Codec(options.default_deadline)
        self._committer = Committer(topic.name, frontiers)
        self._watchdog = Watchdog(options.stalled_after_s)
        self._draining = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Join, take records until `stopping`, finish what is in flight, commit, leave.

        Raises KafkaError, TimeoutError or OSError: the client broke. What it had taken comes again.
        UnicodeDecodeError: there is a record that it cannot read; only a membership that takes records
        `one_by_one` can tell which one, and steps over it.
        """
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await self._consumer.start()
            self._consumer.subscribe([self._topic.name], listener=_Rebalances(self))
            await self._poll_until(stopping)
        finally:
            await self._leave()

    async def let_go_of(self, partitions: Collection[int]) -> None:
        """Give partitions back: drop what waits, let what runs end for a while, commit, end their epochs.

        What still runs then goes on; its result is stored, but moves no frontier.
        """
        self._in_flight.drop_waiting(partitions)
        await self._in_flight.drained(
            partitions, timeout_s=min(self._options.drain_timeout_s, _LONGEST_DRAIN_AT_REVOKE_S)
        )
        await self._committer.commit(self._consumer)
        self._frontiers.end(partitions)

    def assigned(self) -> None:
        """Note that the group has dealt out its partitions."""
        self._assigned.set()

    async def _poll_until(self, stopping: asyncio.Event) -> None:
        polling = asyncio.create_task(self._poll())
        committing = asyncio.create_task(self._committer.run(self._consumer, self._options.commit_interval_s))
        stopped = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({polling, committing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.is_set():
                await self._drain()
            else:
                await asyncio.gather(polling, committing)  # one of them failed
        finally:
            await _ended(polling, committing, stopped)

    async def _drain(self) -> None:
        """Finish what is in flight, still polling: a member that does not poll blocks its whole group."""
        self._draining = True
        self._in_flight.drop_waiting(self._frontiers.partitions())
        if not await self._in_flight.drained(None, timeout_s=self._options.drain_timeout_s):
            _log.warning("stopping with deliveries in flight; they come again elsewhere")

    async def _leave(self) -> None:
        partitions = self._frontiers.partitions()
        self._in_flight.drop_waiting(partitions)
        await self._committer.commit(self._consumer)
        self._frontiers.end(partitions)
        await close_consumer(self._consumer)

    async def _poll(self) -> None:
        while True:
            async with asyncio.timeout(_LONGEST_POLL_S):
                found = await self._polled()
            if not self._draining:
                self._take(found)
            self._regulate()
            self._watch()
            await asyncio.sleep(0)  # with records in its buffer `getmany` returns without letting others run

    async def _polled(self) -> _Found:
        found: _Found = {}
        try:
            found = await self._consumer.getmany(
                timeout_ms=_POLL_MS, max_records=1 if self._one_by_one else _POLL_RECORDS
            )
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
                place = self._frontiers.begin(record.partition, record.offset)
                self._in_flight.offer([Delivery.of(place, record, Undecodable("a header name is not UTF-8"))])
                stepped = True
        if not stepped:
            raise KafkaError("a record cannot be read, and cannot be found either")

    def _take(self, found: _Found) -> None:
        for records in found.values():
            self._in_flight.offer([self._delivery(record) for record in records])

    def _delivery(self, taken: ConsumerRecord[bytes, bytes]) -> Delivery:
        record = Record(
            topic=taken.topic,
            partition=taken.partition,
            offset=taken.offset,
            timestamp_ms=taken.timestamp,
            key=taken.key,
            value=taken.value,
            headers=tuple(taken.headers),
            timestamp_type=taken.timestamp_type,
        )
        return Delivery.of(self._frontiers.begin(taken.partition, taken.offset), record, self._decoded(record))

    def _decoded(self, record: Record) -> Event | Undecodable:
        try:
            return self._codec.decode(self._topic, record)
        except Undecodable as error:
            return error

    def _regulate(self) -> None:
        """Pause partitions that have too much in hand, resume those that have room again."""
        lanes, intake, paused = self._in_flight.lanes, self._options.intake, self._consumer.paused()
        for partition in self._consumer.assignment():
            if self._draining or intake.is_full(lanes, partition.partition):
                if partition not in paused:
                    self._consumer.pause(partition)
            elif partition in paused and intake.has_room(lanes, partition.partition):
                self._consumer.resume(partition)

    def _watch(self) -> None:
        fetching = self._consumer.assignment() - self._consumer.paused()
        answers = {p.partition: self._consumer.last_poll_timestamp(p) for p in fetching}
        if stalled := self._watchdog.stalled(answers, time.monotonic()):
            raise KafkaError(f"no fetch of partitions {sorted(stalled)} was answered for too long")


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


def new_consumer(connection: KafkaConnection, group: str, session_timeout_s: float) -> AIOKafkaConsumer:
    """A member of a group to be, which neither subscribed nor started yet."""
    return AIOKafkaConsumer(
        **connection.client_options(),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=_FETCH_BYTES,
        request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
        rebalance_timeout_ms=int(_REBALANCE_TIMEOUT_S * 1000),
        session_timeout_ms=int(session_timeout_s * 1000),
        heartbeat_interval_ms=int(min(session_timeout_s / 4, 1.0) * 1000),
        metadata_max_age_ms=30_000,  # how soon new partitions are found
    )


async def _ended(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, KafkaError, TimeoutError, OSError):
            await task
