"""The conformance suite: the embedded broker and Apache Kafka must give aiokafka the same answers."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import OffsetAndMetadata, TopicPartition
from aiokafka.admin import NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidPartitionsError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from bus.static_member import under_own_name
from contracts.errors import Misconfigured
from tests.contract.backends import embedded_kafka
from tests.contract.broker.kit import LIMIT_S, Cluster, batch_of, share_out, take, until

T0 = 1_700_000_000_000  # a time in ms


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "kafka":
        async with Cluster(request.getfixturevalue("kafka_bootstrap")) as cluster:
            yield cluster
        return
    async with embedded_kafka(tmp_path) as connection, Cluster(connection.bootstrap_servers) as cluster:
        yield cluster


@pytest.fixture
def group() -> str:
    return f"g-{uuid.uuid4().hex[:12]}"


# --- records ----------------------------------------------------------------------------------------------


async def test_a_record_comes_back_as_it_was_sent(cluster: Cluster) -> None:
    topic = await cluster.topic()
    producer = await cluster.producer()
    headers = [("ce_id", b"1"), ("empty", b""), ("twice", b"a"), ("twice", b"b")]
    told = await producer.send_and_wait(topic, b"value", key=b"key", timestamp_ms=T0, headers=headers)
    [record] = await cluster.read_all(topic, 1)
    assert (record.key, record.value, record.timestamp, record.offset) == (b"key", b"value", T0, 0)
    assert list(record.headers) == headers
    assert (told.topic, told.partition, told.offset) == (topic, 0, 0)


async def test_a_null_key_and_a_null_value_are_not_empty_ones(cluster: Cluster) -> None:
    topic = await cluster.topic()
    producer = await cluster.producer()
    await producer.send_and_wait(topic, value=None, key=b"k")
    await producer.send_and_wait(topic, value=b"", key=None)
    await producer.send_and_wait(topic, value=b"v", key=b"")
    records = await cluster.read_all(topic, 3)
    assert [(record.key, record.value) for record in records] == [(b"k", None), (None, b""), (b"", b"v")]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_come_back(cluster: Cluster, codec: str) -> None:
    topic = await cluster.topic()
    values = [bytes([number]) * 1000 for number in range(50)]
    await cluster.publish(topic, values, compression_type=codec)
    assert [record.value for record in await cluster.read_all(topic, 50)] == values


async def test_a_record_of_900_kb_comes_back(cluster: Cluster) -> None:
    topic = await cluster.topic()
    values = [bytes([number]) * 900_000 for number in range(3)]
    await cluster.publish(topic, values, max_request_size=1_000_000)
    assert [record.value for record in await cluster.read_all(topic, 3)] == values


async def test_a_record_larger_than_the_reader_asks_for_is_not_a_dead_end(cluster: Cluster) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"a" * 200_000, b"b" * 200_000])
    reader = await cluster.reader(topic, max_partition_fetch_bytes=1000)
    assert [len(record.value) for record in await take(reader, 2)] == [200_000, 200_000]


async def test_a_record_larger_than_the_topic_takes_is_refused(cluster: Cluster) -> None:
    topic = await cluster.topic(max_message_bytes="10000")
    producer = await cluster.producer()
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(topic, b"x" * 20_000)
    await producer.send_and_wait(topic, b"x" * 5000)
    assert len(await cluster.read_all(topic, 1)) == 1


async def test_records_of_a_partition_keep_their_order(cluster: Cluster) -> None:
    topic = await cluster.topic(partitions=2)
    values = [b"%d" % number for number in range(2000)]
    await cluster.publish(topic, values, partition=1, max_batch_size=500, enable_idempotence=True)
    records = await cluster.read_all(topic, 2000, partition=1)
    assert [record.value for record in records] == values
    assert [record.offset for record in records] == list(range(2000))


async def test_records_sent_without_acknowledgement_arrive(cluster: Cluster) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"a", b"b"], acks=0)
    assert [record.value for record in await cluster.read_all(topic, 2)] == [b"a", b"b"]


async def test_reading_only_what_is_committed_loses_nothing(cluster: Cluster) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"a", b"b"])
    reader = await cluster.reader(topic, isolation_level="read_committed")
    assert [record.value for record in await take(reader, 2)] == [b"a", b"b"]


# --- idempotent producers ---------------------------------------------------------------------------------


async def produce(cluster: Cluster, topic: str, batch: bytes) -> tuple[int, int]:
    """Error code and base offset."""
    answer = await cluster.send(ProduceRequest(None, -1, 10_000, [(topic, [(0, batch)])]))
    _, error, offset, *_ = answer.topics[0][1][0]
    return error, offset


async def new_producer_id(cluster: Cluster) -> int:
    answer = await cluster.send(InitProducerIdRequest(None, 0))
    assert (answer.error_code, answer.producer_epoch) == (0, 0)
    return int(answer.producer_id)


async def test_two_producers_never_get_the_same_id(cluster: Cluster) -> None:
    assert await new_producer_id(cluster) != await new_producer_id(cluster)


async def test_a_repeated_batch_is_stored_once_and_answered_with_its_offset(cluster: Cluster) -> None:
    topic = await cluster.topic()
    producer_id = await new_producer_id(cluster)
    batches = [batch_of([b"a", b"b"], producer_id=producer_id, epoch=0, sequence=2 * n) for n in range(5)]
    assert [await produce(cluster, topic, batch) for batch in batches] == [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8)]
    assert [await produce(cluster, topic, batch) for batch in batches] == [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8)]
    end = await (await cluster.reader(topic)).end_offsets([TopicPartition(topic, 0)])
    assert end == {TopicPartition(topic, 0): 10}


async def test_a_gap_in_the_sequence_is_refused(cluster: Cluster) -> None:
    topic = await cluster.topic()
    producer_id = await new_producer_id(cluster)
    assert await produce(cluster, topic, batch_of([b"a"], producer_id=producer_id, epoch=0, sequence=0)) == (0, 0)
    error, _ = await produce(cluster, topic, batch_of([b"c"], producer_id=producer_id, epoch=0, sequence=2))
    assert error == 45  # OUT_OF_ORDER_SEQUENCE_NUMBER
    assert await produce(cluster, topic, batch_of([b"b"], producer_id=producer_id, epoch=0, sequence=1)) == (0, 1)


async def test_an_older_epoch_of_a_producer_is_fenced(cluster: Cluster) -> None:
    topic = await cluster.topic()
    producer_id = await new_producer_id(cluster)
    assert (await produce(cluster, topic, batch_of([b"a"], producer_id=producer_id, epoch=1, sequence=0)))[0] == 0
    error, _ = await produce(cluster, topic, batch_of([b"b"], producer_id=producer_id, epoch=0, sequence=1))
    assert error == 47  # INVALID_PRODUCER_EPOCH


async def test_a_batch_with_a_flipped_bit_is_refused(cluster: Cluster) -> None:
    topic = await cluster.topic()
    batch = bytearray(batch_of([b"a" * 100]))
    batch[-1] ^= 1
    error, _ = await produce(cluster, topic, bytes(batch))
    assert error == 2  # CORRUPT_MESSAGE
    assert await produce(cluster, topic, batch_of([b"b"])) == (0, 0)


# --- reading ----------------------------------------------------------------------------------------------


async def test_a_waiting_fetch_wakes_on_new_data(cluster: Cluster) -> None:
    topic = await cluster.topic()
    producer = await cluster.producer()
    began = time.monotonic()
    for offset in range(5):
        asked = FetchRequest(5000, 1, 1_000_000, 0, [(topic, [(0, offset, 1_000_000)])])
        fetching = asyncio.create_task(cluster.send(asked))
        await producer.send_and_wait(topic, b"%d" % offset)
        [(_, [(_, error, end, *_)])] = (await asyncio.wait_for(fetching, 20)).topics
        assert (error, end) == (0, offset + 1)
    assert time.monotonic() - began < 4  # unwoken, a fetch that came before its record lasts 5 seconds


async def test_a_reader_that_wants_many_bytes_waits_for_them_only_so_long(cluster: Cluster) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"small"])
    reader = await cluster.reader(topic, fetch_min_bytes=1_000_000, fetch_max_wait_ms=300)
    began = time.monotonic()
    assert (await asyncio.wait_for(reader.getone(), 10)).value == b"small"
    assert time.monotonic() - began > 0.2


async def test_offsets_of_the_beginning_and_the_end(cluster: Cluster) -> None:
    topic = await cluster.topic(partitions=2)
    await cluster.publish(topic, [b"a", b"b", b"c"])
    reader = await cluster.reader(topic)
    written, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
    assert await reader.beginning_offsets([written, empty]) == {written: 0, empty: 0}
    assert await reader.end_offsets([written, empty]) == {written: 3, empty: 0}


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_offsets_of_a_time_are_exact_within_a_batch(cluster: Cluster, codec: str | None) -> None:
    topic = await cluster.topic()
    producer = await cluster.producer(compression_type=codec, linger_ms=50)
    for first in (0, 10):
        sent = [
            await producer.send(topic, b"x" * 50, partition=0, timestamp_ms=T0 + 1000 * number)
            for number in range(first, first + 10)
        ]
        await asyncio.gather(*sent)
    reader, part = await cluster.reader(topic), TopicPartition(topic, 0)

    async def found(time_ms: int) -> tuple[int, int] | None:
        answer = (await reader.offsets_for_times({part: time_ms}))[part]
        return answer and (answer.offset, answer.timestamp)

    assert await found(0) == (0, T0)
    assert await found(T0 + 3000) == (3, T0 + 3000)
    assert await found(T0 + 12_001) == (13, T0 + 13_000)
    assert await found(T0 + 19_000) == (19, T0 + 19_000)
    assert await found(T0 + 19_001) is None


async def test_seeking_goes_anywhere(cluster: Cluster) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"%d" % number for number in range(10)])
    reader, part = await cluster.reader(topic), TopicPartition(topic, 0)
    reader.seek(part, 7)
    assert (await asyncio.wait_for(reader.getone(), 10)).value == b"7"
    assert await reader.position(part) == 8
    await reader.seek_to_beginning(part)
    assert (await asyncio.wait_for(reader.getone(), 10)).value == b"0"
    await reader.seek_to_end(part)
    assert await reader.position(part) == 10


async def test_an_offset_out_of_range_is_told(cluster: Cluster) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"a", b"b"])
    reader = await cluster.reader(topic, auto_offset_reset="none")
    reader.seek(TopicPartition(topic, 0), 99)
    with pytest.raises(OffsetOutOfRangeError):
        await asyncio.wait_for(reader.getone(), 10)


@pytest.mark.parametrize(("reset", "expected"), [("earliest", b"a"), ("latest", b"new")])
async def test_an_offset_out_of_range_is_reset(cluster: Cluster, reset: str, expected: bytes) -> None:
    topic = await cluster.topic()
    await cluster.publish(topic, [b"a", b"b"])
    reader, part = await cluster.reader(topic, auto_offset_reset=reset), TopicPartition(topic, 0)
    reader.seek(part, 99)
    waiting = asyncio.create_task(reader.getone())

    async def is_reset() -> bool:
        return await reader.position(part) <= 2

    await until(is_reset)
    await cluster.publish(topic, [b"new"])
    assert (await asyncio.wait_for(waiting, 10)).value == expected


async def test_an_unknown_topic_stays_unknown(cluster: Cluster) -> None:
    admin, name = await cluster.admin(), f"nobody-made-{uuid.uuid4().hex}"
    assert await cluster.is_gone(name)
    producer = await cluster.producer(request_timeout_ms=500)
    with pytest.raises(UnknownTopicOrPartitionError):
        await producer.send_and_wait(name, b"lost")
    assert name not in await admin.list_topics()


# --- groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 6])
async def test_members_that_start_at_once_share_all_partitions(cluster: Cluster, group: str, size: int) -> None:
    topic = await cluster.topic(partitions=8)
    members = await asyncio.gather(*(cluster.consumer(topic, group_id=group) for _ in range(size)))
    await share_out(members, topic, 8)


async def test_members_that_come_one_by_one_share_all_partitions(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic(partitions=6)
    members = []
    for _ in range(4):
        members.append(await cluster.consumer(topic, group_id=group))
        await share_out(members, topic, 6)


async def test_a_member_that_leaves_hands_its_partitions_over(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic(partitions=4)
    members = list(await asyncio.gather(*(cluster.consumer(topic, group_id=group) for _ in range(3))))
    await share_out(members, topic, 4)
    await members.pop(0).stop()
    await share_out(members, topic, 4)
    await members.pop(0).stop()
    assert await share_out(members, topic, 4) == [{0, 1, 2, 3}]


async def test_members_beyond_the_partitions_wait_and_take_over(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic(partitions=1)
    first = await cluster.consumer(topic, group_id=group)
    second = await cluster.consumer(topic, group_id=group)

    async def one_holds_it() -> bool:
        return [len(first.assignment()), len(second.assignment())] in ([1, 0], [0, 1])

    await until(one_holds_it)
    holder, other = (first, second) if first.assignment() else (second, first)
    await holder.stop()
    await share_out([other], topic, 1)


async def test_a_group_reads_every_record_once_while_members_come_and_go(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic(partitions=4)
    for partition in range(4):
        await cluster.publish(topic, [b"%d-%d" % (partition, number) for number in range(25)], partition=partition)
    first = await cluster.consumer(topic, group_id=group)
    seen = [record.value for record in await take(first, 100)]
    await first.commit()
    second = await cluster.consumer(topic, group_id=group)
    await share_out([first, second], topic, 4)
    for partition in range(4):
        await cluster.publish(topic, [b"new-%d" % partition], partition=partition)
    fresh: list[bytes] = []

    async def all_are_read() -> bool:
        for member in (first, second):
            for records in (await member.getmany(timeout_ms=20)).values():
                fresh.extend(record.value for record in records)
        return len(fresh) >= 4

    await until(all_are_read)
    assert len(set(seen)) == 100
    assert sorted(fresh) == [b"new-0", b"new-1", b"new-2", b"new-3"]


async def test_a_static_member_comes_back_without_a_rebalance(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic(partitions=4)
    other = await cluster.consumer(topic, group_id=group, group_instance_id="a")
    first = await cluster.consumer(topic, group_id=group, group_instance_id="b")
    held = (await share_out([other, first], topic, 4))[1]
    generation = other._coordinator.generation
    await first._coordinator.close()  # a static member leaves nobody a message when it goes
    again = await cluster.consumer(topic, group_id=group, group_instance_id="b")
    assert (await share_out([other, again], topic, 4))[1] == held
    assert other._coordinator.generation == generation


async def test_of_two_static_members_with_one_id_the_first_is_told(cluster: Cluster, group: str) -> None:
    """Without `under_own_name` they take the id from each other for ever, as aiokafka's heartbeat does not name it."""
    topic = await cluster.topic(partitions=2)
    first = await cluster.consumer(group_id=group, group_instance_id="a")

    async def poll() -> None:
        with under_own_name(first, "a"):
            first.subscribe([topic])
            while True:
                await first.getmany(timeout_ms=20)

    polling = asyncio.create_task(poll())
    await share_out([first], topic, 2)
    second = await cluster.consumer(topic, group_id=group, group_instance_id="a")
    with pytest.raises(Misconfigured, match="instance id 'a'"):
        await asyncio.wait_for(polling, LIMIT_S)
    assert await share_out([second], topic, 2) == [{0, 1}]


async def test_a_session_timeout_out_of_bounds_is_refused(cluster: Cluster, group: str) -> None:
    answer = await cluster.send(JoinGroupRequest(group, 10, 10, "", None, "consumer", [("range", b"")]))
    assert answer.error_code == 26  # INVALID_SESSION_TIMEOUT


async def test_a_new_member_is_told_its_id_first(cluster: Cluster, group: str) -> None:
    answer = await cluster.send(JoinGroupRequest(group, 6000, 6000, "", None, "consumer", [("range", b"")]))
    assert answer.error_code == 79  # MEMBER_ID_REQUIRED
    assert answer.member_id
    joined = JoinGroupRequest(group, 6000, 6000, answer.member_id, None, "consumer", [("range", b"")])
    answer = await cluster.send(joined)
    assert (answer.error_code, answer.leader_id) == (0, answer.member_id)


async def test_a_member_without_a_common_protocol_is_refused(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic()
    member = await cluster.consumer(topic, group_id=group)
    await share_out([member], topic, 1)
    answer = await cluster.send(JoinGroupRequest(group, 6000, 6000, "", None, "consumer", [("strange", b"")]))
    assert answer.error_code == 23  # INCONSISTENT_GROUP_PROTOCOL
    answer = await cluster.send(JoinGroupRequest(group, 6000, 6000, "", None, "connect", [("roundrobin", b"")]))
    assert answer.error_code == 23


async def test_heartbeats_of_strangers_and_of_old_generations_are_refused(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic()
    member = await cluster.consumer(topic, group_id=group)
    await share_out([member], topic, 1)
    coordinator = member._coordinator
    stranger = await cluster.send(HeartbeatRequest(group, coordinator.generation, "nobody"))
    old = await cluster.send(HeartbeatRequest(group, coordinator.generation - 1, coordinator.member_id))
    own = await cluster.send(HeartbeatRequest(group, coordinator.generation, coordinator.member_id))
    assert (stranger.error_code, old.error_code, own.error_code) == (25, 22, 0)


# --- committed offsets ------------------------------------------------------------------------------------


async def test_a_group_goes_on_where_it_committed(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic()
    part = TopicPartition(topic, 0)
    await cluster.publish(topic, [b"%d" % number for number in range(5)])
    first = await cluster.consumer(topic, group_id=group)
    assert await first.committed(part) is None
    await take(first, 5)
    await first.commit({part: OffsetAndMetadata(3, "note")})
    assert await first.committed(part) == 3
    assert await first.position(part) == 5
    await first.stop()
    second = await cluster.consumer(topic, group_id=group)
    assert [record.value for record in await take(second, 2)] == [b"3", b"4"]
    admin = await cluster.admin()
    assert await admin.list_consumer_group_offsets(group) == {part: OffsetAndMetadata(3, "note")}


async def commit_as(cluster: Cluster, group: str, generation: int, member_id: str, topic: str, offset: int = 1) -> int:
    request = OffsetCommitRequest(group, generation, member_id, -1, [(topic, [(0, offset, "")])])
    answer = await cluster.send(request)
    return int(answer.topics[0][1][0][1])


async def test_only_members_of_this_generation_may_commit(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic()
    member = await cluster.consumer(topic, group_id=group)
    await share_out([member], topic, 1)
    generation, member_id = member._coordinator.generation, member._coordinator.member_id
    assert await commit_as(cluster, group, generation - 1, member_id, topic) == 22  # ILLEGAL_GENERATION
    assert await commit_as(cluster, group, generation, "nobody", topic) == 25  # UNKNOWN_MEMBER_ID
    assert await commit_as(cluster, group, -1, "", topic) == 25
    assert await commit_as(cluster, group, generation, member_id, topic) == 0


async def test_anyone_may_commit_for_a_group_without_members(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic()
    assert await commit_as(cluster, group, 5, "gone", topic) == 22
    assert await commit_as(cluster, group, -1, "", topic, offset=4) == 0
    member = await cluster.consumer(topic, group_id=group)
    await share_out([member], topic, 1)
    assert await member.committed(TopicPartition(topic, 0)) == 4
    await member.stop()
    assert await commit_as(cluster, group, -1, "", topic, offset=2) == 0
    answer = await (await cluster.admin()).list_consumer_group_offsets(group, partitions=[TopicPartition(topic, 0)])
    assert answer[TopicPartition(topic, 0)].offset == 2


async def test_a_member_that_was_replaced_cannot_commit(cluster: Cluster, group: str) -> None:
    topic = await cluster.topic(partitions=2)
    first = await cluster.consumer(topic, group_id=group)
    await share_out([first], topic, 2)
    old_generation = first._coordinator.generation
    second = await cluster.consumer(topic, group_id=group)
    await share_out([first, second], topic, 2)
    assert await commit_as(cluster, group, old_generation, first._coordinator.member_id, topic) == 22


async def test_a_commit_for_an_unknown_partition_is_refused(cluster: Cluster, group: str) -> None:
    assert await commit_as(cluster, group, -1, "", f"nobody-made-{uuid.uuid4().hex}") == 3


async def test_a_consumer_with_partitions_of_its_choice_commits_too(cluster: Cluster, group: str) -> None:
    topic, admin = await cluster.topic(), await cluster.admin()
    part = TopicPartition(topic, 0)
    consumer = await cluster.consumer(group_id=group)
    consumer.assign([part])
    await cluster.publish(topic, [b"a", b"b"])
    await take(consumer, 2)
    await consumer.commit()
    assert (await admin.list_consumer_group_offsets(group))[part].offset == 2


async def test_an_unknown_group_has_committed_nothing(cluster: Cluster, group: str) -> None:
    topic, admin = await cluster.topic(), await cluster.admin()
    part = TopicPartition(topic, 0)
    assert await admin.list_consumer_group_offsets(group) == {}
    assert await admin.list_consumer_group_offsets(group, partitions=[part]) == {part: OffsetAndMetadata(-1, "")}


# --- administration ---------------------------------------------------------------------------------------


async def create_error(cluster: Cluster, topic: NewTopic, **options: Any) -> int:
    answer = await (await cluster.admin()).create_topics([topic], **options)
    return int(answer.topic_errors[0][1])


async def test_topics_that_cannot_be_are_refused(cluster: Cluster) -> None:
    topic = await cluster.topic()
    assert await create_error(cluster, NewTopic(topic, 1, 1)) == 36  # TOPIC_ALREADY_EXISTS
    assert await create_error(cluster, NewTopic("no spaces", 1, 1)) == 17  # INVALID_TOPIC_EXCEPTION
    assert await create_error(cluster, NewTopic("x" * 250, 1, 1)) == 17
    assert await create_error(cluster, NewTopic("fresh", 0, 1)) == 37  # INVALID_PARTITIONS
    assert await create_error(cluster, NewTopic("fresh", 1, 3)) == 38  # INVALID_REPLICATION_FACTOR
    assert await create_error(cluster, NewTopic("fresh", 1, 1, topic_configs={"no.such": "1"})) == 40  # INVALID_CONFIG
    assert await create_error(cluster, NewTopic("fresh", 1, 1, topic_configs={"retention.ms": "soon"})) == 40
    assert await cluster.is_gone("fresh")


async def test_a_topic_can_be_tried_out_without_creating_it(cluster: Cluster) -> None:
    name = f"tried-{uuid.uuid4().hex}"
    assert await create_error(cluster, NewTopic(name, 1, 1), validate_only=True) == 0
    assert await cluster.is_gone(name)


async def test_partitions_and_replicas_have_defaults(cluster: Cluster) -> None:
    name = f"default-{uuid.uuid4().hex}"
    assert await create_error(cluster, NewTopic(name, -1, -1, replica_assignments={})) == 0
    await until(lambda: cluster.has_partitions(name, 1))


async def test_a_deleted_topic_is_gone_and_comes_back_empty(cluster: Cluster, group: str) -> None:
    admin, topic = await cluster.admin(), await cluster.topic()
    await cluster.publish(topic, [b"a", b"b"])
    assert await commit_as(cluster, group, -1, "", topic) == 0
    answer = await admin.delete_topics([topic, "nobody-made-this"])
    assert set(answer.topic_error_codes) == {(topic, 0), ("nobody-made-this", 3)}
    await until(lambda: cluster.is_gone(topic))
    assert topic not in await admin.list_topics()

    async def nothing_is_committed() -> bool:
        return not await admin.list_consumer_group_offsets(group)

    await until(nothing_is_committed)
    await cluster.create(NewTopic(topic, 1, 1))
    await cluster.publish(topic, [b"new"])
    [record] = await cluster.read_all(topic, 1)
    assert (record.offset, record.value) == (0, b"new")


async def test_a_topic_can_be_given_more_partitions_but_not_fewer(cluster: Cluster) -> None:
    admin, topic = await cluster.admin(), await cluster.topic(partitions=2)
    await admin.create_partitions({topic: NewPartitions(4)})
    await until(lambda: cluster.has_partitions(topic, 4))
    await cluster.publish(topic, [b"a"], partition=3)
    assert len(await cluster.read_all(topic, 1, partition=3)) == 1
    for count in (2, 4):
        with pytest.raises(InvalidPartitionsError):
            await admin.create_partitions({topic: NewPartitions(count)})


async def settings_of(cluster: Cluster, topic: str) -> dict[str, tuple[str, int]]:
    """Value and source of every setting."""
    [answer] = await (await cluster.admin()).describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(error, _, _, _, configs)] = answer.resources
    assert error == 0
    return {name: (value, source) for name, value, _, source, *_ in configs}


async def test_settings_are_told_and_changed(cluster: Cluster) -> None:
    admin, topic = await cluster.admin(), await cluster.topic(retention_ms="1234567")
    settings = await settings_of(cluster, topic)
    assert settings["retention.ms"] == ("1234567", 1)  # set on the topic
    assert settings["cleanup.policy"] == ("delete", 5)  # a default
    change = {"retention.ms": "7654321", "cleanup.policy": "compact"}
    [answer] = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, change)])
    assert [error for error, *_ in answer.resources] == [0]

    async def changed() -> bool:
        settings = await settings_of(cluster, topic)
        return settings["retention.ms"] == ("7654321", 1) and settings["cleanup.policy"] == ("compact", 1)

    await until(changed)


async def test_the_settings_of_an_unknown_topic_are_unknown(cluster: Cluster) -> None:
    [answer] = await (await cluster.admin()).describe_configs([ConfigResource(ConfigResourceType.TOPIC, "nobody-made")])
    assert answer.resources[0][0] == 3


async def test_records_can_be_deleted_up_to_an_offset(cluster: Cluster) -> None:
    admin, topic = await cluster.admin(), await cluster.topic()
    part = TopicPartition(topic, 0)
    await cluster.publish(topic, [b"%d" % number for number in range(10)])
    assert await admin.delete_records({part: RecordsToDelete(6)}) == {part: 6}
    reader = await cluster.reader(topic)
    assert await reader.beginning_offsets([part]) == {part: 6}
    assert [record.value for record in await take(reader, 4)] == [b"6", b"7", b"8", b"9"]
    with pytest.raises(OffsetOutOfRangeError):
        await admin.delete_records({part: RecordsToDelete(11)})
    assert await admin.delete_records({part: RecordsToDelete(-1)}) == {part: 10}


async def test_groups_are_listed_and_described(cluster: Cluster, group: str) -> None:
    admin, topic = await cluster.admin(), await cluster.topic(partitions=2)
    member = await cluster.consumer(topic, group_id=group, client_id="describe-me")
    await share_out([member], topic, 2)
    [told] = (await admin.describe_consumer_groups([group]))[0].groups
    error, name, state, protocol_type, protocol, members, *_ = told
    assert (error, name, state, protocol_type, protocol) == (0, group, "Stable", "consumer", "roundrobin")
    assert [(m[0], m[1]) for m in members] == [(member._coordinator.member_id, "describe-me")]
    assert (group, "consumer") in await admin.list_consumer_groups()
    await commit_as(cluster, group, member._coordinator.generation, member._coordinator.member_id, topic)
    await member.stop()
    [told] = (await admin.describe_consumer_groups([group]))[0].groups
    assert (told[2], told[5]) == ("Empty", [])
    assert (group, "consumer") in await admin.list_consumer_groups()


async def test_a_group_that_nobody_knows_is_dead(cluster: Cluster, group: str) -> None:
    admin = await cluster.admin()
    [told] = (await admin.describe_consumer_groups([group]))[0].groups
    assert (told[0], told[2], told[5]) == (0, "Dead", [])
    assert group not in [name for name, _ in await admin.list_consumer_groups()]


async def delete_group(cluster: Cluster, group: str) -> int:
    answer = await cluster.send(DeleteGroupsRequest([group]))
    return int(answer.results[0][1])


async def test_a_group_is_deleted_when_it_has_no_members(cluster: Cluster, group: str) -> None:
    admin, topic = await cluster.admin(), await cluster.topic()
    member = await cluster.consumer(topic, group_id=group)
    await share_out([member], topic, 1)
    await member.commit({TopicPartition(topic, 0): 0})
    assert await delete_group(cluster, group) == 68  # NON_EMPTY_GROUP
    await member.stop()
    assert await delete_group(cluster, group) == 0
    assert await delete_group(cluster, group) == 69  # GROUP_ID_NOT_FOUND
    assert await admin.list_consumer_group_offsets(group) == {}
