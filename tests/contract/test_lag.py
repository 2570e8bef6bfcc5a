"""Lag on the embedded broker and on Apache Kafka: what no worker has touched, and partitions that cannot be asked."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import LeaderNotAvailableError
from aiokafka.protocol.metadata import MetadataRequest

from bus.admin import apply_topics
from bus.codec import Codec
from bus.connection import KafkaConnection
from bus.groups import Group
from bus.lag import GroupLag, LagReader, lag_reader
from bus.publisher import Publisher
from bus.rewinding import offsets_of
from contracts.errors import BusUnavailable, Misconfigured
from contracts.events import TicketSubmitted
from contracts.topics import Topic, dead_letters_of
from state.memory_parking import MemoryParking
from state.memory_tickets import MemoryTickets
from state.progress import MemoryProgress
from state.stores import memory_stores
from tests.contract.kafka_way import AddressTap, way_to
from tests.drill.taps import OFFSET_FETCH, _frames


@dataclass
class Place:
    """A topic that nobody has read, and who looks at it."""

    connection: KafkaConnection
    topic: Topic
    group: str

    @contextlib.asynccontextmanager
    async def reader(self, connection: KafkaConnection | None = None) -> AsyncIterator[LagReader]:
        stores = memory_stores()
        assert isinstance(stores.tickets, MemoryTickets)
        assert isinstance(stores.parking, MemoryParking)
        progress, codec = MemoryProgress(stores.tickets, stores.parking), Codec(timedelta(hours=1))
        async with lag_reader(connection or self.connection, self.group, self.topic, progress, codec) as reader:
            yield reader

    async def put(self, count: int) -> None:
        async with Publisher(self.connection) as publisher:
            tickets = [(f"t{n}", b'{"ticket_id":"t%d","body":"hi"}' % n) for n in range(count)]
            for ticket_id, value in tickets:
                await publisher.put(self.topic.name, key=ticket_id.encode(), value=value)

    async def truncate(self, partition: int, below: int) -> None:
        admin = AIOKafkaAdminClient(**self.connection.client_options())
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(self.topic.name, partition): RecordsToDelete(below)})
        finally:
            await admin.close()


@pytest.fixture
async def place(connection: KafkaConnection) -> Place:
    name = uuid.uuid4().hex[:12]
    topic = Topic(f"lag-{name}", (TicketSubmitted,), partitions=4, bare_json=True)
    await apply_topics(connection, [topic, dead_letters_of(topic, f"group-{name}")])
    return Place(connection, topic, f"group-{name}")


def unfinished(seen: GroupLag) -> int:
    return sum(row.unfinished for row in seen.partitions)


async def test_a_group_that_never_was_has_all_before_it(place: Place) -> None:
    await place.put(40)
    async with place.reader() as reader:
        seen = await reader.look()
    assert (unfinished(seen), seen.group) == (40, Group("Dead"))
    assert all(row.committed is None and row.raw is None for row in seen.partitions)
    assert all(row.oldest_ms is not None for row in seen.partitions)


async def test_an_empty_topic_has_no_lag(place: Place) -> None:
    async with place.reader() as reader:
        seen = await reader.look()
    assert [(row.partition, row.unfinished, row.error, row.oldest_ms) for row in seen.partitions] == [
        (number, 0, "", None) for number in range(4)
    ]


async def test_what_retention_took_is_no_lag(place: Place) -> None:
    await place.put(40)
    async with place.reader() as reader:
        before = await reader.look()
        first = before.partitions[0]
        await place.truncate(0, first.open - 1)
        after = await reader.look()
    assert unfinished(after) == 40 - (first.open - 1)
    assert after.partitions[0].open == 1


async def test_what_comes_between_two_looks_is_found_by_the_second(place: Place) -> None:
    async with place.reader() as reader:
        assert unfinished(await reader.look()) == 0
        await place.put(10)
        assert unfinished(await reader.look()) == 10
        await place.put(5)
        assert unfinished(await reader.look()) == 15


async def test_a_long_backlog_is_counted_by_offsets_and_said_to_be_at_most_that(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.backlog.MOST_OPEN", 5)  # what one fetch brings is taken whole
    await place.put(60)
    async with place.reader() as reader:
        assert unfinished(await reader.look()) == 60
        await place.put(60)
        seen = await reader.look()
    assert unfinished(seen) == 120
    assert all(row.at_most for row in seen.partitions)


async def test_a_topic_that_is_missing_is_named_and_not_made(place: Place) -> None:
    missing = Place(place.connection, Topic("nobody-made-it", (TicketSubmitted,)), "nobody")
    with pytest.raises(Misconfigured, match=r"nobody-made-it.*topics apply"):
        async with missing.reader():
            pass
    with pytest.raises(Misconfigured, match="nobody-made-it"):
        async with missing.reader():
            pass


async def test_a_cluster_that_is_down_is_said_to_be(place: Place, unused_tcp_port: int) -> None:
    nobody = KafkaConnection(f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(BusUnavailable, match="Kafka cannot be reached"):
        async with place.reader(nobody):
            pass


@dataclass
class LeaderlessTap(AddressTap):
    """Tells clients that one partition of the topic has no leader."""

    leaderless: int = 2
    struck: list[int] = field(default_factory=list)

    def answered(self, data: bytes) -> bytes | None:
        """Whole answers, where those to metadata requests lack a leader."""
        asked = dict(self._asked)
        through = super().answered(data)
        if through is None:
            return None
        changed = bytearray()
        for frame in _frames(bytearray(through)):
            request = asked.get(int.from_bytes(frame[:4], "big"))
            if request is not None and request.api_key == MetadataRequest.API_KEY:
                frame = frame[:4] + self._without_leader(request.version, frame[4:])
            changed += len(frame).to_bytes(4, "big") + frame
        return bytes(changed)

    def _without_leader(self, version: int, body: bytes) -> bytes:
        known = {struct.API_VERSION: struct.RESPONSE_TYPE for struct in MetadataRequest._CLASSES}
        if version not in known:
            return body
        response = known[version].decode(body)
        response.topics = [
            (*head, [self._one(*partition) for partition in partitions]) for *head, partitions in response.topics
        ]
        return bytes(response.encode())

    def _one(self, error: int, number: int, leader: int, *rest: object) -> tuple[object, ...]:
        if number != self.leaderless:
            return (error, number, leader, *rest)
        return (LeaderNotAvailableError.errno, number, -1, *rest)


async def test_a_coordinator_that_is_loading_is_not_taken_for_one_that_has_no_offsets(place: Place) -> None:
    await place.put(40)
    async with offsets_of(place.connection, place.group, place.topic.name) as offsets:
        await offsets.commit(await offsets.moves("latest"))
    async with way_to(place.connection.bootstrap_servers) as way:
        way.meddle(OFFSET_FETCH, 14, times=2)
        async with place.reader(way.connection) as reader:
            seen = await reader.look()
        assert way.mischief.done == 2
        way.meddle(OFFSET_FETCH, 14, times=2)
        async with offsets_of(way.connection, place.group, place.topic.name) as offsets:
            moves = await offsets.moves("earliest")
        assert way.mischief.done == 4
    assert [row.committed for row in seen.partitions] == [move.ends for move in moves]
    assert [move.now for move in moves] == [move.ends for move in moves]


async def test_a_partition_without_a_leader_spoils_one_row(place: Place) -> None:
    await place.put(40)
    async with place.reader() as reader:
        whole = await reader.look()
    async with way_to(place.connection.bootstrap_servers) as way:
        make = way.proxy.new_tap

        def leaderless() -> LeaderlessTap:
            tap = make()
            assert isinstance(tap, AddressTap)
            return LeaderlessTap(tap.mischief, broker=tap.broker, proxy=tap.proxy, topic=tap.topic)

        way.proxy.new_tap = leaderless
        async with place.reader(way.connection) as reader:
            seen = await reader.look()
    assert [row.error for row in seen.partitions] == ["", "", "LeaderNotAvailableError", ""]
    assert [row.open for row in seen.partitions if not row.error] == [
        row.open for row in whole.partitions if row.partition != 2
    ]
