"""What the broker tests share: clients that close themselves, topics of a test's own, waiting for a condition."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

LIMIT_S = 60.0


async def until(condition: Callable[[], Awaitable[Any]], limit_s: float = LIMIT_S) -> Any:
    """Wait until the condition returns something true, and return that."""
    end = time.monotonic() + limit_s
    while not (result := await condition()):
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)
    return result


class Cluster:
    """A broker as aiokafka sees it; everything opened here is closed with it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._open = AsyncExitStack()
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def admin(self) -> AIOKafkaAdminClient:
        """The administrator's client."""
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await self._admin.start()
            self._open.push_async_callback(self._admin.close)
        return self._admin

    async def send(self, request: Any) -> Any:
        """Send one request of aiokafka's protocol classes, and return the answer."""
        admin = await self.admin()
        return await admin._send_request_to_node(await until(self._coordinator), request)

    async def _coordinator(self) -> int | None:
        """The broker, known as soon as it coordinates groups: Apache Kafka needs a while for the first of all."""
        try:
            return await (await self.admin()).find_coordinator("any")
        except GroupCoordinatorNotAvailableError:
            return None

    async def topic(self, partitions: int = 1, **settings: str) -> str:
        """A new topic that is ready for use. Settings: `retention_ms="1000"` sets retention.ms."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        configs = {key.replace("_", "."): value for key, value in settings.items()}
        await self.create(NewTopic(name, partitions, 1, topic_configs=configs))
        return name

    async def create(self, topic: NewTopic) -> None:
        """Create a topic and wait until it can be used."""
        admin = await self.admin()
        answer = await admin.create_topics([topic])
        assert [error for _, error, *_ in answer.topic_errors] == [0]
        await until(lambda: self.has_partitions(topic.name, topic.num_partitions))

    async def has_partitions(self, topic: str, partitions: int) -> bool:
        """Whether the topic is known with so many partitions, all of them led."""
        [told] = await (await self.admin()).describe_topics([topic])
        led = [part for part in told["partitions"] if part["error_code"] == 0 and part["leader"] >= 0]
        return told["error_code"] == 0 and len(led) == partitions

    async def is_gone(self, topic: str) -> bool:
        """Whether nobody knows the topic."""
        [told] = await (await self.admin()).describe_topics([topic])
        return bool(told["error_code"] == 3)

    async def producer(self, **options: Any) -> AIOKafkaProducer:
        """A started producer."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, **({"linger_ms": 0, "acks": "all"} | options))
        await producer.start()
        self._open.push_async_callback(producer.stop)
        return producer

    async def consumer(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        """A started consumer, from the earliest record on."""
        defaults = {
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "heartbeat_interval_ms": 50,
            "fetch_max_wait_ms": 100,
            "retry_backoff_ms": 20,
            "metadata_max_age_ms": 1000,
        }
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=self.bootstrap, **(defaults | options))
        await consumer.start()
        self._open.push_async_callback(consumer.stop)
        return consumer

    async def reader(self, topic: str, partition: int = 0, **options: Any) -> AIOKafkaConsumer:
        """A consumer of one partition, without a group."""
        consumer = await self.consumer(**options)
        consumer.assign([TopicPartition(topic, partition)])
        return consumer

    async def publish(self, topic: str, values: Sequence[bytes], partition: int = 0, **options: Any) -> None:
        """Send values to one partition, in order."""
        producer = await self.producer(**options)
        sent = [await producer.send(topic, value, partition=partition) for value in values]
        await asyncio.gather(*sent)

    async def read_all(self, topic: str, count: int, partition: int = 0) -> list[ConsumerRecord[Any, Any]]:
        """The first records of a partition."""
        return await take(await self.reader(topic, partition), count)


async def take(consumer: AIOKafkaConsumer, count: int, limit_s: float = LIMIT_S) -> list[ConsumerRecord[Any, Any]]:
    """So many records, in the order they came."""
    records: list[ConsumerRecord[Any, Any]] = []

    async def enough() -> bool:
        for batch in (await consumer.getmany(timeout_ms=50)).values():
            records.extend(batch)
        return len(records) >= count

    await until(enough, limit_s)
    return records


async def share_out(members: Collection[AIOKafkaConsumer], topic: str, partitions: int) -> list[set[int]]:
    """Wait until the members hold every partition of the topic once, each some; who holds what."""

    async def shares() -> list[set[int]]:
        held = [{part.partition for part in member.assignment() if part.topic == topic} for member in members]
        complete = sorted(part for share in held for part in share) == list(range(partitions))
        return held if complete and all(held) else []

    return list(await until(shares))


def batch_of(
    values: Sequence[bytes],
    *,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    timestamps: Mapping[int, int] | None = None,
) -> bytes:
    """A record batch as a producer would make it; its first sequence number may be anything."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        batch_size=1 << 20,
    )
    for offset, value in enumerate(values):
        timestamp = (timestamps or {}).get(offset, 1_700_000_000_000)
        builder.append(offset, timestamp=timestamp, key=None, value=value, headers=[])
    return bytes(builder.build())
