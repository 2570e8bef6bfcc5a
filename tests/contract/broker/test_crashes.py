"""Crashes and restarts, of the broker and of group members: the embedded broker in its process, and Apache Kafka."""

import asyncio
import itertools
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError

from tests.contract.broker.kit import Cluster, share_out, take, until
from tests.services.kafka import answers_kafka
from tests.services.native import NativeService, Service, free_port
from tests.services.reaper import Reaper

ROOT = Path(__file__).parents[3]


@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.system), pytest.param("kafka", marks=pytest.mark.kafka)]
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """The broker's process, and where clients find it."""
    if request.param == "kafka":
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        yield request.getfixturevalue("kafka_server"), bootstrap
        return
    service, port = embedded(tmp_path, request.getfixturevalue("reaper"))
    service.start()
    yield service, f"127.0.0.1:{port}"
    service.stop()


def embedded(folder: Path, reaper: Reaper) -> tuple[NativeService, int]:
    port = free_port()
    command = [sys.executable, "-m", "ops.broker", "--data-dir", str(folder / "data"), "--port", str(port)]
    return (
        NativeService("the embedded broker", command, folder, reaper, lambda: answers_kafka(port),
                      environment={"PYTHONPATH": str(ROOT)}),
        port,
    )  # fmt: skip


def crash(service: Service, how: str) -> None:
    if how == "kill":
        service.kill()
    else:
        service.stop()


@asynccontextmanager
async def restarted(service: Service, how: str) -> AsyncIterator[None]:
    """The broker is away in the body, and back after it."""
    await asyncio.to_thread(crash, service, how)
    yield
    await asyncio.to_thread(service.start)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_what_was_acknowledged_is_there_after_a_restart(server: tuple[Service, str], how: str) -> None:
    service, bootstrap = server
    group = f"g-{uuid.uuid4().hex[:12]}"
    async with Cluster(bootstrap) as cluster:
        topic = await cluster.topic(partitions=3, retention_ms="123456789")
        values = [b"%d" % number for number in range(500)]
        await cluster.publish(topic, values, partition=2, max_batch_size=300)
        consumer = await cluster.consumer(topic, group_id=group)
        await take(consumer, 500)
        await consumer.commit({TopicPartition(topic, 2): OffsetAndMetadata(77, "note")})
    async with restarted(service, how):
        pass
    async with Cluster(bootstrap) as cluster:
        await until(lambda: cluster.has_partitions(topic, 3))
        records = await cluster.read_all(topic, 500, partition=2)
        assert [record.value for record in records] == values
        await cluster.publish(topic, [b"next"], partition=2)
        assert (await cluster.read_all(topic, 501, partition=2))[-1].offset == 500
        admin = await cluster.admin()

        async def commits_are_loaded() -> bool:  # the coordinator reads them after its start; aiokafka drops its error
            return bool(await admin.list_consumer_group_offsets(group))

        await until(commits_are_loaded)
        assert (await admin.list_consumer_group_offsets(group))[TopicPartition(topic, 2)] == (77, "note")


async def test_a_killed_broker_loses_and_repeats_nothing_of_an_idempotent_producer(server: tuple[Service, str]) -> None:
    service, bootstrap = server
    acknowledged: list[bytes] = []
    async with Cluster(bootstrap) as cluster:
        topic = await cluster.topic()
        producer = await cluster.producer(enable_idempotence=True, request_timeout_ms=20_000, retry_backoff_ms=50)

        async def produce() -> None:
            for number in itertools.count():
                value = b"%d" % number
                await producer.send_and_wait(topic, value)
                acknowledged.append(value)

        producing = asyncio.create_task(produce())
        for _ in range(2):
            before = len(acknowledged)
            await until(lambda before=before: several_more(acknowledged, before))
            async with restarted(service, "kill"):
                pass
        before = len(acknowledged)
        await until(lambda: several_more(acknowledged, before))
        producing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await producing
        stored = [record.value for record in await cluster.read_all(topic, len(acknowledged))]
    assert stored[: len(acknowledged)] == acknowledged


async def several_more(values: list[bytes], than: int) -> bool:
    return len(values) >= than + 50


async def test_a_group_goes_on_after_its_broker_came_back(server: tuple[Service, str]) -> None:
    service, bootstrap = server
    group = f"g-{uuid.uuid4().hex[:12]}"
    async with Cluster(bootstrap) as cluster:
        topic = await cluster.topic(partitions=2)
        members = [await cluster.consumer(topic, group_id=group) for _ in range(2)]
        await share_out(members, topic, 2)
        async with restarted(service, "kill"):
            pass
        await until(lambda: cluster.has_partitions(topic, 2))
        for partition in range(2):
            await cluster.publish(topic, [b"after"], partition=partition)
        seen: set[int] = set()

        async def both_are_read_and_committed() -> bool:
            for member in members:
                for part in await member.getmany(timeout_ms=20):
                    seen.add(part.partition)
            return len(seen) == 2 and await committed_everything()

        async def committed_everything() -> bool:
            try:
                for member in members:
                    await member.commit()
            except KafkaError:
                return False
            offsets = await (await cluster.admin()).list_consumer_group_offsets(group)
            return {offset.offset for offset in offsets.values()} == {1}

        await until(both_are_read_and_committed)


async def test_the_partitions_of_a_killed_member_are_taken_over(server: tuple[Service, str]) -> None:
    _, bootstrap = server
    group = f"g-{uuid.uuid4().hex[:12]}"
    async with Cluster(bootstrap) as cluster:
        topic = await cluster.topic(partitions=4)
        survivors = [await cluster.consumer(topic, group_id=group) for _ in range(2)]
        script = str(Path(__file__).with_name("member.py"))
        victim = await asyncio.create_subprocess_exec(sys.executable, script, bootstrap, topic, group)
        try:
            await until(lambda: a_third_has_a_share(survivors))
        finally:
            victim.kill()
            await victim.wait()
        await share_out(survivors, topic, 4)


async def a_third_has_a_share(members: Sequence[AIOKafkaConsumer]) -> bool:
    held = [len(member.assignment()) for member in members]
    return all(held) and sum(held) < 4
