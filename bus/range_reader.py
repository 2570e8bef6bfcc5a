"""Reading ranges of a topic's partitions from outside of any group, as its workers would: what is committed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest

from bus.closing import close_consumer
from bus.connection import BROKEN, KafkaConnection
from contracts.errors import BusUnavailable

_ANY_REPLICA, _LATEST, _EARLIEST = -1, -1, -2
_ALL, _COMMITTED = 0, 1  # isolation levels
_TIMEOUT_S = 5.0  # for one question
_LONGEST_READ_S = 15.0  # what is not read by then is not waited for
_POLL_MS = 100  # the end of a partition may hold only markers, which no poll returns
_RECORDS_A_POLL = 2_000
_FETCH_BYTES = 4 * 1024 * 1024

Records = Sequence[ConsumerRecord[bytes, bytes]]
Take = Callable[[int, Records, int], bool]
"""Takes what was read of a partition, and the offset to read next; False: nothing more of it is wanted."""


class Bounds(NamedTuple):
    """Where a partition's log begins, where what is committed of it ends, and where all of it does."""

    start: int
    end: int
    high: int


class RangeReader:
    """Asks for the bounds of one topic's partitions, and reads what lies between them. Joins no group."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self.consumer = consumer
        self._topic = topic

    async def bounds(self, partition: int) -> Bounds:
        """The partition's bounds. Raises KafkaError, TimeoutError or OSError: this partition cannot be asked now."""
        async with asyncio.timeout(_TIMEOUT_S):
            try:
                return await self._bounds(partition)
            except KafkaError:  # it may have moved to another broker, or be new
                await self.consumer._client.force_metadata_update()
                return await self._bounds(partition)

    async def read(self, begins: Mapping[int, int], ends: Mapping[int, int], take: Take) -> None:
        """Read partitions from their begins to their ends.

        Ends early where a partition goes away meanwhile, or holds what aiokafka cannot read.
        """
        left = {partition for partition, begin in begins.items() if begin < ends[partition]}
        if not left:
            return
        self._begin({partition: begins[partition] for partition in left})
        until_s = time.monotonic() + _LONGEST_READ_S
        with contextlib.suppress(*BROKEN, UnicodeDecodeError):
            while left and time.monotonic() < until_s:
                found = await self.consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_A_POLL)
                for number in sorted(left):
                    partition, end = self._partition(number), ends[number]
                    reached = await self.consumer.position(partition)  # beyond markers too
                    records = [record for record in found.get(partition, ()) if record.offset < end]
                    if not take(number, records, min(reached, end)) or reached >= end:
                        left.discard(number)
                        self.consumer.pause(partition)
        self.consumer.pause(*map(self._partition, left))

    async def _bounds(self, partition: int) -> Bounds:
        return Bounds(
            await self._offset(partition, _EARLIEST, _ALL),
            await self._offset(partition, _LATEST, _COMMITTED),
            await self._offset(partition, _LATEST, _ALL),
        )

    def _begin(self, begins: Mapping[int, int]) -> None:
        wanted = {self._partition(number): begin for number, begin in begins.items()}
        self.consumer.assign([*wanted])
        for partition, begin in wanted.items():
            self.consumer.seek(partition, begin)

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self._topic, number)

    async def _offset(self, partition: int, where: int, isolation: int) -> int:
        client = self.consumer._client
        node = client.cluster.leader_for_partition(self._partition(partition))
        if node in (None, -1):
            raise LeaderNotAvailableError(partition)
        response = await client.send(
            node, OffsetRequest(_ANY_REPLICA, isolation, [(self._topic, [(partition, where)])])
        )
        [(_, [(_, error_code, _, offset)])] = response.topics
        if error_code:
            raise for_code(error_code)(partition)
        return int(offset)


@contextlib.asynccontextmanager
async def range_reader(connection: KafkaConnection, topic: str) -> AsyncIterator[RangeReader]:
    """A reader of a topic that exists. Raises BusUnavailable: Kafka cannot be reached."""
    consumer = AIOKafkaConsumer(
        **connection.client_options(),
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=20,  # what is read is there: only markers may be left of it
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await consumer.start()
            await consumer._client.set_topics([topic])
    except BROKEN as error:
        await close_consumer(consumer)
        raise BusUnavailable(f"Kafka cannot be reached: {type(error).__name__}") from error
    try:
        yield RangeReader(consumer, topic)
    finally:
        await close_consumer(consumer)
