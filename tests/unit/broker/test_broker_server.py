"""The broker on the wire: odd clients, every version it advertises, and its own life."""

import asyncio
import dataclasses
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from kio.index import load_request_schema
from kio.schema.errors import ErrorCode

from ops.broker import protocol as api
from ops.broker.server import MAX_REQUEST_BYTES, DirectoryInUse, EmbeddedBroker
from tests.contract.broker.kit import Cluster, batch_of, take, until
from tests.unit.broker.wire import Wire, answer_in, frame_of

ALL_VERSIONS = [(key, version) for key, (old, new) in api.VERSIONS.items() for version in range(old, new + 1)]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def wire(broker: EmbeddedBroker) -> AsyncIterator[Wire]:
    wire = await Wire.to(broker.bootstrap_servers)
    yield wire
    await wire.close()


def entity(schema: Any, **values: Any) -> Any:
    """An entity with plain values wherever none is given."""
    plan = {name: default for name, _, default in api._plan(schema)}
    names = {field.name for field in dataclasses.fields(schema)}
    return schema(**(plan | {name: value for name, value in values.items() if name in names}))


def request(api_key: int, version: int, **values: Any) -> Any:
    return entity(load_request_schema(api_key, version), **values)


def nested(api_key: int, version: int, field: str, **values: Any) -> Any:
    """One item of a list of a request."""
    found = {name: item for name, item, _ in api._plan(load_request_schema(api_key, version))}
    return entity(found[field], **values)


# --- odd clients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # TLS
        (MAX_REQUEST_BYTES + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02ab",
        b"\x00\x00\x00\x0a" + b"\x00\x03\x00\x63" + b"\x00" * 6,  # Metadata, version 99
        b"\x00\x00\x00\x0a" + b"\x7f\xff\x00\x00" + b"\x00" * 6,  # no such API
        b"\x00\x00\x00\x0c" + b"\x00\x03\x00\x01" + b"\x00" * 6 + b"\x7f\xff",  # cut off
        b"\x00\x00\x00\x0f"
        + b"\x00\x03\x00\x05"
        + b"\x00\x00\x00\x07\xff\xff"
        + b"\x7f\xff\xff\xff\x00",  # two billion topics
    ],
)
async def test_garbage_ends_its_connection_and_nothing_else(
    broker: EmbeddedBroker, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = await Wire.to(broker.bootstrap_servers), await Wire.to(broker.bootstrap_servers)
    bad.send_bytes(garbage)
    assert await bad.receive() is None
    assert "closed a connection" in caplog.text
    assert "an error of ours" not in caplog.text
    assert (await good.ask(api.METADATA, 5, request(api.METADATA, 5))).controller_id == 1
    await good.close()


async def test_damaged_requests_never_hurt_the_broker(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    chance, good = random.Random(1), await Wire.to(broker.bootstrap_servers)
    frames = [frame_of(key, version, request(key, version)) for key, version in ALL_VERSIONS]
    frames += [frame_of(*rich) for rich in rich_requests()]
    for _ in range(600):
        frame = bytearray(chance.choice(frames))
        for _ in range(chance.randrange(1, 4)):
            frame[chance.randrange(8, len(frame))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        bad = await Wire.to(broker.bootstrap_servers)
        bad.send(bytes(frame[: chance.randrange(8, len(frame) + 1)]))
        assert (await good.ask(api.METADATA, 5, request(api.METADATA, 5))).controller_id == 1
        await bad.close()
    await good.close()
    assert "an error of ours" not in caplog.text


def rich_requests() -> list[tuple[int, int, Any]]:
    batch = batch_of([b"x" * 30])
    part = entity(nested_schema(api.PRODUCE, 8, "topic_data", "partition_data"), index=0, records=batch)
    produce = nested(api.PRODUCE, 8, "topic_data", name="t", partition_data=(part,))
    config = entity(nested_schema(api.CREATE_TOPICS, 4, "topics", "configs"), name="retention.ms", value="1000")
    topic = nested(
        api.CREATE_TOPICS, 4, "topics", name="made", num_partitions=2, replication_factor=1, configs=(config,)
    )
    return [
        (api.PRODUCE, 8, request(api.PRODUCE, 8, acks=-1, topic_data=(produce,))),
        (api.JOIN_GROUP, 5, join_request("")),
        (api.CREATE_TOPICS, 4, request(api.CREATE_TOPICS, 4, topics=(topic,), validate_only=True)),
    ]


def nested_schema(api_key: int, version: int, *path: str) -> Any:
    schema: Any = load_request_schema(api_key, version)
    for field in path:
        schema = {name: item for name, item, _ in api._plan(schema)}[field]
    return schema


def join_request(member_id: str) -> Any:
    return request(
        api.JOIN_GROUP,
        5,
        group_id="g",
        member_id=member_id,
        protocol_type="consumer",
        protocols=(nested(api.JOIN_GROUP, 5, "protocols", name="range", metadata=b"m"),),
        session_timeout=timedelta(seconds=60),
        rebalance_timeout=timedelta(milliseconds=300),
    )


async def test_an_unknown_version_of_the_first_question_is_answered_with_the_list(wire: Wire) -> None:
    wire.send(b"\x00\x12\x00\x63\x00\x00\x00\x07" + b"\x00" * 8)
    frame = await wire.receive()
    assert frame is not None
    answer = answer_in(frame, api.API_VERSIONS, 0)
    assert answer.error_code is ErrorCode.unsupported_version
    assert {key.api_key: key.max_version for key in answer.api_keys} == {k: new for k, (_, new) in api.VERSIONS.items()}


@pytest.mark.parametrize(("api_key", "version"), ALL_VERSIONS)
async def test_every_version_that_is_advertised_is_answered(wire: Wire, api_key: int, version: int) -> None:
    acks = {"acks": 1} if api_key == api.PRODUCE else {}
    await wire.ask(api_key, version, request(api_key, version, **acks))


async def test_requests_sent_without_waiting_are_answered_in_order(wire: Wire) -> None:
    for _ in range(100):
        wire.send(frame_of(api.METADATA, 5, request(api.METADATA, 5)))
        wire.send(frame_of(api.HEARTBEAT, 3, request(api.HEARTBEAT, 3)))
    for _ in range(100):
        answer_in(await wire.receive() or b"", api.METADATA, 5)
        answer_in(await wire.receive() or b"", api.HEARTBEAT, 3)


async def test_a_request_that_comes_byte_by_byte_is_answered(wire: Wire) -> None:
    frame = frame_of(api.METADATA, 5, request(api.METADATA, 5))
    for byte in len(frame).to_bytes(4, "big") + frame:
        wire.send_bytes(bytes([byte]))
        await asyncio.sleep(0)
    assert await wire.receive() is not None


async def test_transactions_are_refused_not_pretended(wire: Wire) -> None:
    answer = await wire.ask(api.INIT_PRODUCER_ID, 1, request(api.INIT_PRODUCER_ID, 1, transactional_id="t"))
    assert answer.error_code is ErrorCode.transactional_id_authorization_failed
    answer = await wire.ask(api.FIND_COORDINATOR, 1, request(api.FIND_COORDINATOR, 1, key="t", key_type=1))
    assert answer.error_code is ErrorCode.invalid_request
    assert {22, 24, 25, 26, 28} & set(api.VERSIONS) == {22}


async def test_some_settings_can_be_changed_and_others_left(broker: EmbeddedBroker, wire: Wire) -> None:
    async with Cluster(broker.bootstrap_servers) as cluster:
        topic = await cluster.topic(retention_ms="1000", segment_bytes="5000")
        changed = [("retention.ms", 0, "2000"), ("segment.bytes", 1, None)]
        schema = nested_schema(api.INCREMENTAL_ALTER_CONFIGS, 0, "resources", "configs")
        configs = tuple(entity(schema, name=n, config_operation=o, value=v) for n, o, v in changed)
        key = api.INCREMENTAL_ALTER_CONFIGS
        resource = nested(key, 0, "resources", resource_type=2, resource_name=topic, configs=configs)
        answer = await wire.ask(key, 0, request(key, 0, resources=(resource,)))
        assert answer.responses[0].error_code is ErrorCode.none
    asked = nested(api.DESCRIBE_CONFIGS, 2, "resources", resource_type=2, resource_name=topic, configuration_keys=None)
    told = await wire.ask(api.DESCRIBE_CONFIGS, 2, request(api.DESCRIBE_CONFIGS, 2, resources=(asked,)))
    values = {config.name: (config.value, config.config_source) for config in told.results[0].configs}
    assert values["retention.ms"] == ("2000", 1)
    assert values["segment.bytes"] == ("67108864", 5)


async def test_a_member_that_does_not_rejoin_in_time_is_left_behind(broker: EmbeddedBroker) -> None:
    wires = [await Wire.to(broker.bootstrap_servers) for _ in range(2)]
    ids = [(await wire.ask(api.JOIN_GROUP, 5, join_request(""))).member_id for wire in wires]
    joining = [wire.ask(api.JOIN_GROUP, 5, join_request(i)) for wire, i in zip(wires, ids, strict=True)]
    leader_id = (await asyncio.gather(*joining))[0].leader
    leader, silent = sorted(wires, key=lambda wire: ids[wires.index(wire)] != leader_id)
    silent_id = next(member_id for member_id in ids if member_id != leader_id)
    await leader.ask(api.SYNC_GROUP, 3, request(api.SYNC_GROUP, 3, group_id="g", generation_id=1, member_id=leader_id))
    again = await leader.ask(api.JOIN_GROUP, 5, join_request(leader_id))
    assert (again.generation_id, [member.member_id for member in again.members]) == (2, [leader_id])
    beat = request(api.HEARTBEAT, 3, group_id="g", generation_id=2, member_id=silent_id)
    assert (await silent.ask(api.HEARTBEAT, 3, beat)).error_code is ErrorCode.unknown_member_id
    for wire in wires:
        await wire.close()


async def test_a_leader_that_never_tells_its_plan_is_left_behind(wire: Wire) -> None:
    member_id = (await wire.ask(api.JOIN_GROUP, 5, join_request(""))).member_id
    assert (await wire.ask(api.JOIN_GROUP, 5, join_request(member_id))).leader == member_id
    beat = request(api.HEARTBEAT, 3, group_id="g", generation_id=1, member_id=member_id)

    async def gone() -> bool:
        return (await wire.ask(api.HEARTBEAT, 3, beat)).error_code is ErrorCode.unknown_member_id

    await until(gone, limit_s=5)


# --- its own life -----------------------------------------------------------------------------------------


async def test_a_directory_has_one_broker(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(DirectoryInUse, match=str(tmp_path)):
        await EmbeddedBroker(tmp_path).start()


async def test_a_broker_that_stopped_can_start_again_on_its_data(tmp_path: Path) -> None:
    topic = ""
    for round_ in range(3):
        broker = EmbeddedBroker(tmp_path, fsync=round_ == 1)
        await broker.start()
        async with Cluster(broker.bootstrap_servers) as cluster:
            topic = topic or await cluster.topic()
            await cluster.publish(topic, [b"%d" % round_])
            assert [r.value for r in await cluster.read_all(topic, round_ + 1)][-1] == b"%d" % round_
        await broker.stop()


async def test_stopping_does_not_wait_for_those_who_wait(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    wire = await Wire.to(broker.bootstrap_servers)
    wire.send(frame_of(api.FETCH, 11, request(api.FETCH, 11, max_wait=timedelta(minutes=1), min_bytes=1)))
    other = await Wire.to(broker.bootstrap_servers)
    await other.ask(api.METADATA, 5, request(api.METADATA, 5))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < 1
    assert await wire.receive() is None
    await wire.close()
    await other.close()


async def test_retention_is_enforced_while_it_runs(broker: EmbeddedBroker) -> None:
    async with Cluster(broker.bootstrap_servers) as cluster:
        topic = await cluster.topic(retention_ms="0")
        await cluster.publish(topic, [b"old"])
        reader, part = await cluster.reader(topic), TopicPartition(topic, 0)

        async def deleted() -> bool:
            broker.enforce_retention()
            return await reader.beginning_offsets([part]) == {part: 1}

        await until(deleted)
        await cluster.publish(topic, [b"new"])
        assert [record.value for record in await take(reader, 1)] == [b"new"]


@pytest.mark.system
def test_a_second_process_on_a_directory_says_so_and_exits_with_3(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops.broker", "--data-dir", str(tmp_path), "--port-file", str(tmp_path / "port")]
    first = subprocess.Popen(command)
    try:
        end = time.monotonic() + 20
        while not (tmp_path / "port").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode == 3
        assert second.stderr.strip() == f"broker: another broker uses the data directory {tmp_path}"
    finally:
        first.terminate()
    assert first.wait(timeout=20) == 0


async def test_a_start_that_fails_leaves_the_directory_free(broker: EmbeddedBroker, tmp_path: Path) -> None:
    port = int(broker.bootstrap_servers.rpartition(":")[2])
    with pytest.raises(OSError, match="address"):
        await EmbeddedBroker(tmp_path / "other", port=port).start()
    other = EmbeddedBroker(tmp_path / "other")
    await other.start()
    await other.stop()
