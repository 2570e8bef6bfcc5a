"""Looks at Kafka from outside: what is committed, what lies on topics, how topics and offsets are changed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from bus.closing import close_consumer
from bus.connection import KafkaConnection
from tests.drill.ledger import true_time
from tests.drill.oracles import Place, Sample
from tests.system.kit import until

_SAMPLE_EVERY_S = 0.15
_PATIENCE_S = 5.0

TopicRecord = ConsumerRecord[bytes, bytes]


@contextlib.asynccontextmanager
async def admin_of(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administrator, for a moment."""
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(_PATIENCE_S * 1000))
    try:
        await asyncio.wait_for(admin.start(), _PATIENCE_S)
        yield admin
    finally:
        with contextlib.suppress(KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(admin.close(), _PATIENCE_S)


@contextlib.asynccontextmanager
async def reader(connection: KafkaConnection, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that is assigned by hand; with a group, it may commit for it while the group is empty."""
    consumer = AIOKafkaConsumer(
        **connection.client_options(),
        group_id=group,
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await close_consumer(consumer)


async def create_topic(connection: KafkaConnection, name: str, partitions: int, **config: str) -> None:
    """Make a topic whose timestamps, unless told otherwise, are its producers'."""
    async with admin_of(connection) as admin:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        await until(lambda: _has_partitions(admin, name, partitions), f"the topic {name}")


async def delete_topics(connection: KafkaConnection, names: Sequence[str]) -> None:
    """Delete topics and see them gone."""
    async with admin_of(connection) as admin:
        await admin.delete_topics(list(names))
        await until(lambda: _has_none(admin, names), f"the deletion of {names}")


async def add_partitions(connection: KafkaConnection, name: str, total: int) -> None:
    """Raise a topic's partitions."""
    async with admin_of(connection) as admin:
        await admin.create_partitions({name: NewPartitions(total)})
        await until(lambda: _has_partitions(admin, name, total), f"{total} partitions of {name}")


async def _has_partitions(admin: AIOKafkaAdminClient, name: str, count: int) -> bool:
    return len(await _partitions(admin, name)) >= count


async def _has_none(admin: AIOKafkaAdminClient, names: Sequence[str]) -> bool:
    return not set(names) & set(await admin.list_topics())


async def _partitions(admin: AIOKafkaAdminClient, name: str) -> list[int]:
    return [p["partition"] for t in await admin.describe_topics() if t["topic"] == name for p in t["partitions"]]


async def ends_of(connection: KafkaConnection, topic: str) -> Mapping[int, int]:
    """The next offset of each partition."""
    async with admin_of(connection) as admin, reader(connection) as consumer:
        partitions = [TopicPartition(topic, p) for p in await _partitions(admin, topic)]
        return {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items()}


async def set_offsets(connection: KafkaConnection, group: str, topic: str, offsets: Mapping[int, int]) -> None:
    """Commit for a group whose members have ended, once the broker has noticed that they have."""
    wanted = {TopicPartition(topic, p): OffsetAndMetadata(offset, "") for p, offset in offsets.items()}
    async with reader(connection, group) as consumer:
        consumer.assign(list(wanted))
        await until(lambda: _commits(consumer, wanted), f"the offsets of {group}, which still has members")


async def _commits(consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> bool:
    try:
        await consumer.commit(offsets)
    except CommitFailedError:
        return False
    return True


async def committed_of(admin: AIOKafkaAdminClient, group: str, topic: str) -> Mapping[int, int]:
    """What a group has committed."""
    offsets = await admin.list_consumer_group_offsets(group)
    return {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == topic and found.offset >= 0}


async def read_topic(
    connection: KafkaConnection, topic: str, begins: Mapping[int, int] | None = None
) -> list[TopicRecord]:
    """Every record from the given offsets (or the beginning) to the end of now."""
    async with reader(connection) as consumer:
        ends = {TopicPartition(topic, p): end for p, end in (await ends_of(connection, topic)).items()}
        consumer.assign(list(ends))
        for partition in ends:
            consumer.seek(partition, (begins or {}).get(partition.partition, 0))
        found: list[TopicRecord] = []
        async with asyncio.timeout(30):
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
    return found


@dataclass
class Sampler:
    """Notes what groups have committed, again and again."""

    connection: KafkaConnection
    groups: Mapping[str, str]  # group: its topic
    samples: list[Sample] = field(default_factory=list)
    generations: dict[str, int] = field(default_factory=dict)  # of a topic; it changes when it is made anew
    blind_to: set[str] = field(
        default_factory=set
    )  # topics that are being made anew: what is committed is the old one's
    _last: dict[tuple[str, int], Place] = field(default_factory=dict)

    async def run(self) -> None:
        """Sample until cancelled; while Kafka is away there is nothing to see."""
        while True:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with admin_of(self.connection) as admin:
                    await self._sample(admin)
            await asyncio.sleep(_SAMPLE_EVERY_S)

    async def _sample(self, admin: AIOKafkaAdminClient) -> None:
        while True:
            for group, topic in self.groups.items():
                generation = self.generations.get(topic, 0)
                found = await asyncio.wait_for(committed_of(admin, group, topic), _PATIENCE_S)
                if generation == self.generations.get(topic, 0) and topic not in self.blind_to:
                    self._note(group, topic, generation, found)
            await asyncio.sleep(_SAMPLE_EVERY_S)

    def _note(self, group: str, topic: str, generation: int, found: Mapping[int, int]) -> None:
        at = true_time()
        for partition, offset in found.items():
            place = Place(topic, partition, offset, generation)
            if self._last.get((group, partition)) != place:  # an offset that stands is no news
                self._last[group, partition] = place
                self.samples.append(Sample(at, group, place))


def header(record: Any, name: str) -> str:
    """A header's text; "" when it is not there."""
    return (dict(record.headers).get(name) or b"").decode("utf-8", "replace")


async def with_config(connection: KafkaConnection, topic: str, config: Mapping[str, str]) -> None:
    """Set a topic's configuration to this and nothing else."""
    async with admin_of(connection) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(config))
        for response in await admin.alter_configs([resource]):
            for code, message, *_ in response.resources:
                if code:
                    raise KafkaError(f"{topic} refuses its settings: {message}")
