"""Topics and backlogs on the cluster under test."""

import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner

PARTITIONS = 8
VALUE_BYTES = 200
_BATCH_BYTES = 256 * 1024
Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """A topic that holds records: how many in each partition."""

    topic: str
    ends: tuple[int, ...]


def ticket_value(ticket_id: str, tenant_id: str = "default") -> bytes:
    """A ticket as JSON, VALUE_BYTES long."""
    document = {"ticket_id": ticket_id, "tenant_id": tenant_id, "from_email": "ann@example.com", "body": ""}
    document["body"] = "x" * (VALUE_BYTES - len(json.dumps(document)))
    return json.dumps(document).encode()


def event_headers(event_id: str, ce_time: bytes) -> Headers:
    """The headers of a customer's message with an id of its own. An old `ce_time` would be past its deadline."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", b"TicketSubmitted"),
        ("ce_source", b"urn:switchyard:benchmark"),
        ("ce_time", ce_time),
        ("content-type", b"application/json"),
    ]


def now() -> bytes:
    """The time as a header."""
    return datetime.now(UTC).isoformat().encode()


def event_id_of(partition: int, offset: int) -> str:
    """The id of the event that stands there in a backlog: where it stands, so that an agent can tell."""
    return f"{partition}:{offset}"


class Keys:
    """Where keys belong, as Kafka's own default has it."""

    def __init__(self, partitions: int = PARTITIONS) -> None:
        self._partitions = list(range(partitions))
        self._choose: Callable[[bytes, list[int], list[int]], int] = DefaultPartitioner()
        self._known: dict[bytes, int] = {}

    def partition_of(self, key: bytes) -> int:
        """The partition of a key."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._choose(key, self._partitions, self._partitions)
        return found


class Cluster:
    """The Kafka under test: makes topics of its own, removes them at the end."""

    def __init__(self, bootstrap: str, admin: AIOKafkaAdminClient) -> None:
        self.bootstrap = bootstrap
        self._admin = admin
        self._made: list[str] = []

    async def topic(self, name: str, partitions: int = PARTITIONS) -> str:
        """Make a topic whose name begins so; returns its whole name."""
        whole = f"{name}.{uuid.uuid4().hex[:8]}"
        await self.exact_topic(whole, partitions)
        return whole

    async def exact_topic(self, name: str, partitions: int) -> None:
        """Make a topic of exactly that name."""
        answer = await self._admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])
        for _, code, *why in answer.topic_errors:
            if code:
                raise RuntimeError(f"topic {name} cannot be made: {why}")
        self._made.append(name)

    async def backlog(self, name: str, *, tickets: int, records: int, events: bool = False) -> Backlog:
        """Make a topic and fill it, the tickets taking turns; `events` gives each record headers and an id."""
        topic = await self.topic(name)
        ends = await fill(self.bootstrap, topic, tickets=tickets, records=records, events=events)
        return Backlog(topic, ends)

    async def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """What a group has committed, by partition."""
        found = await self._admin.list_consumer_group_offsets(group)
        return {at.partition: offset.offset for at, offset in found.items() if at.topic == topic}

    async def ends(self, topic: str, partitions: int = PARTITIONS) -> tuple[int, ...]:
        """One past the last offset of each partition."""
        client = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await client.start()
        try:
            found = await client.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        finally:
            await client.stop()
        return tuple(found[TopicPartition(topic, number)] for number in range(partitions))

    async def skip_to_end(self, group: str, topic: str) -> None:
        """Let a group that nobody is in begin with what comes next."""
        client = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
        await client.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            client.assign(partitions)
            await client.commit(await client.end_offsets(partitions))
        finally:
            await client.stop()

    async def read(
        self, topic: str, since: Sequence[int], until: Sequence[int]
    ) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
        """Every record between two sets of end offsets; partition by partition in order, partitions mixed."""
        wanted = {TopicPartition(topic, n): end for n, end in enumerate(until) if end > since[n]}
        client = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await client.start()
        try:
            client.assign(list(wanted))
            for partition in wanted:
                client.seek(partition, since[partition.partition])
            while wanted:
                for partition, records in (await client.getmany(timeout_ms=500)).items():
                    for record in records:
                        if record.offset < until[partition.partition]:
                            yield record
                    if records[-1].offset + 1 >= until[partition.partition]:
                        wanted.pop(partition, None)
        finally:
            await client.stop()

    async def remove_topics(self) -> None:
        """Remove what was made here."""
        if self._made:
            await self._admin.delete_topics(self._made)


@asynccontextmanager
async def open_cluster(bootstrap: str) -> AsyncIterator[Cluster]:
    """The cluster at an address; its topics of this run are removed at the end."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=30_000)
    await admin.start()
    cluster = Cluster(bootstrap, admin)
    try:
        yield cluster
    finally:
        await cluster.remove_topics()
        await admin.close()


async def fill(bootstrap: str, topic: str, *, tickets: int, records: int, events: bool) -> tuple[int, ...]:
    """Write records to an empty topic, the tickets taking turns; returns how many each partition got."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=_BATCH_BYTES)
    await producer.start()
    try:
        filling = _Filling(producer, topic)
        known = [(f"t-{n}".encode(), ticket_value(f"t-{n}")) for n in range(tickets)]
        for number in range(records):
            key, value = known[number % tickets]
            await filling.add(key, value, events)
        await filling.flush()
    finally:
        await producer.stop()
    return tuple(filling.ends)


class _Filling:
    """Packs batches by hand: a million records in seconds."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self.ends = [0] * PARTITIONS
        self._producer = producer
        self._topic = topic
        self._keys = Keys()
        self._ce_time = now()
        self._open = [producer.create_batch() for _ in range(PARTITIONS)]

    async def add(self, key: bytes, value: bytes, events: bool) -> None:
        """Write one record."""
        partition = self._keys.partition_of(key)
        offset = self.ends[partition]
        headers = event_headers(event_id_of(partition, offset), self._ce_time) if events else []
        if self._open[partition].append(timestamp=None, key=key, value=value, headers=headers) is None:
            await self._send(partition)
            self._open[partition].append(timestamp=None, key=key, value=value, headers=headers)
        self.ends[partition] = offset + 1

    async def flush(self) -> None:
        """Wait until all is acknowledged."""
        for partition in range(PARTITIONS):
            await self._send(partition)
        await self._producer.flush()

    async def _send(self, partition: int) -> None:
        batch, self._open[partition] = self._open[partition], self._producer.create_batch()
        if batch.record_count():
            await self._producer.send_batch(batch, self._topic, partition=partition)
