"""`switchyard run` as ops uses it: several workers, a drain, a second signal, a parent that is killed."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bus.connection import KafkaConnection
from contracts.topics import LOOKUP, TICKETS, Topic
from tests.services.reaper import Reaper
from tests.system.kit import Process, System, system, until, with_fresh_topics

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]


@dataclass
class Yard:
    """A system without workers yet, seen from Kafka."""

    system: System
    producer: AIOKafkaProducer
    admin: AIOKafkaAdminClient
    reader: AIOKafkaConsumer
    ticket_ids: list[str] = field(default_factory=list)

    async def publish(self, count: int) -> None:
        """Publish tickets for triage, each a call of the model."""
        ids = [f"t{len(self.ticket_ids) + n}" for n in range(count)]
        self.ticket_ids += ids
        for ticket_id in ids:
            value = json.dumps({"ticket_id": ticket_id, "body": "Where is my order?"}).encode()
            await self.producer.send(TICKETS.name, key=ticket_id.encode(), value=value)
        await self.producer.flush()

    async def handed_on(self) -> list[str]:
        """The tickets that triage handed to lookup, one for each time."""
        partitions = [TopicPartition(LOOKUP.name, n) for n in range(LOOKUP.partitions)]
        ends = await self.reader.end_offsets(partitions)
        self.reader.assign(partitions)
        await self.reader.seek_to_beginning(*partitions)
        found: list[str] = []
        while len(found) < sum(ends.values()):
            for records in (await self.reader.getmany(timeout_ms=100)).values():
                found += [record.key.decode() for record in records]
        return found

    async def all_handed_on(self) -> bool:
        """Whether every ticket published is."""
        return set(await self.handed_on()) == set(self.ticket_ids)

    async def uncommitted(self, topic: Topic, group: str) -> int:
        """How many records of a topic lie above what the group committed."""
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        ends = await self.reader.end_offsets(partitions)
        committed = await self.admin.list_consumer_group_offsets(group)
        return sum(end - max(0, committed[p].offset if p in committed else 0) for p, end in ends.items())

    async def members(self, group: str) -> int:
        """How many members the group has."""
        [response] = await self.admin.describe_consumer_groups([group])
        return len(response.groups[0][5])

    async def until_calls_are_under_way(self, count: int) -> None:
        """Wait until the stand-in has so many requests open."""

        async def under_way() -> bool:
            connections = psutil.net_connections("tcp")
            port = int(self.system.standin_url.rpartition(":")[2])
            return sum(c.laddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in connections) >= count

        await until(under_way, f"{count} calls of the model")


@pytest.fixture
async def yard(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str, redis_url: str, reaper: Reaper
) -> AsyncIterator[Yard]:
    connection = KafkaConnection(kafka_bootstrap)
    await with_fresh_topics(connection)
    services = {
        "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap,
        "SWITCHYARD_POSTGRES__DSN": postgres_dsn,
        "SWITCHYARD_REDIS__URL": redis_url,
    }
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    reader = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap)
    async with system(tmp_path, reaper, services) as started:
        await asyncio.gather(producer.start(), admin.start(), reader.start())
        yield Yard(started, producer, admin, reader)
        await asyncio.gather(producer.stop(), admin.close(), reader.stop())


def children(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.child.pid).children(recursive=True)


async def until_gone(processes: list[psutil.Process], limit_s: float) -> None:
    async def gone() -> bool:
        return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)

    await until(gone, "the end of every process", limit_s)


async def test_several_workers_share_the_work_and_one_that_is_killed_is_replaced(yard: Yard) -> None:
    await yard.system.start_standin()
    [parent] = await yard.system.start_workers(["triage"], "--workers", "3")
    assert '{"ready": "triage", "workers": 3}' in parent.log.read_text()
    first = children(parent)
    assert len(first) == await yard.members("triage") == 3
    await yard.publish(20)
    await until(yard.all_handed_on, "every ticket at lookup")

    first[1].kill()

    async def replaced() -> bool:
        return len(children(parent)) == 3 and first[1] not in children(parent)

    await until(replaced, "another worker")
    await yard.publish(20)
    await until(yard.all_handed_on, "every ticket at lookup")
    logged = [json.loads(line) for line in parent.log.read_text().splitlines() if line.startswith('{"event"')]
    [said] = [line for line in logged if "ended by itself" in line["event"]]
    assert "worker 2 of triage ended by itself (signal 9)" in said["event"]
    assert {line["worker"] for line in logged if "worker" in line} == {1, 2, 3}

    last = children(parent)
    assert await parent.drain() == 0
    await until_gone(last, 1)
    assert await yard.uncommitted(TICKETS, "triage") == 0
    assert sorted(await yard.handed_on()) == sorted(yard.ticket_ids)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_first_sigterm_finishes_what_is_in_flight_commits_and_leaves(yard: Yard, workers: int) -> None:
    await yard.system.start_standin(latency_ms=2000)
    [parent] = await yard.system.start_workers(["triage"], "--workers", str(workers))
    await yard.publish(30)
    await yard.until_calls_are_under_way(30)
    assert await yard.handed_on() == []
    assert await parent.drain() == 0
    assert sorted(await yard.handed_on()) == sorted(yard.ticket_ids)
    assert await yard.uncommitted(TICKETS, "triage") == 0
    assert await yard.members("triage") == 0


async def test_a_drain_ends_in_time_and_what_it_left_comes_again(yard: Yard) -> None:
    yard.system.environment["SWITCHYARD_AGENTS__DRAIN_TIMEOUT_S"] = "1"
    await yard.system.start_standin(latency_ms=20_000)
    [slow] = await yard.system.start_workers(["triage"])
    await yard.publish(10)
    await yard.until_calls_are_under_way(10)
    began = time.monotonic()
    assert await slow.drain() == 0
    assert time.monotonic() - began < 15  # less than what is in flight takes
    assert await yard.handed_on() == []
    assert await yard.members("triage") == 0
    await yard.system.start_workers(["triage"])
    await until(yard.all_handed_on, "every ticket at lookup")


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
async def test_a_second_signal_ends_everything_at_once(yard: Yard, workers: int, number: signal.Signals) -> None:
    await yard.system.start_standin(latency_ms=20_000)
    [parent] = await yard.system.start_workers(["triage"], "--workers", str(workers))
    await yard.publish(5)
    await yard.until_calls_are_under_way(5)
    processes = children(parent)
    assert len(processes) == (workers if workers > 1 else 0)
    parent.child.send_signal(signal.SIGTERM)
    await until(lambda: says(parent, "asked to stop"), "the first signal's effect")
    parent.child.send_signal(number)
    assert await asyncio.wait_for(parent.child.wait(), 2) == 128 + number
    await until_gone(processes, 1)


async def says(process: Process, words: str) -> bool:
    return words in process.log.read_text()


async def test_workers_do_not_outlive_a_parent_that_is_killed(yard: Yard) -> None:
    await yard.system.start_standin(latency_ms=20_000)
    [parent] = await yard.system.start_workers(["triage"], "--workers", "2")
    await yard.publish(5)
    await yard.until_calls_are_under_way(5)
    processes = children(parent)
    assert len(processes) == 2
    parent.kill()
    await until_gone(processes, 2)


async def test_a_setting_that_is_wrong_is_said_once_and_not_tried_again(yard: Yard) -> None:
    code, told = await yard.system.run("run", "triage", "--workers", "4")
    assert code == 2
    [sentence] = [line for line in told.splitlines() if not line.startswith("{")]
    assert "SWITCHYARD_LLM__ANTHROPIC_API_KEY" in sentence
    assert "started again" not in told


def assignments(process: Process) -> list[set[int]]:
    """The partitions that its group assigned to a worker, each time it did."""
    lines = [json.loads(line)["event"] for line in process.log.read_text().splitlines() if line.startswith('{"event"')]
    start = "partitions assigned: "
    return [set(json.loads(line.removeprefix(start))) for line in lines if line.startswith(start)]


async def start_member(yard: Yard, instance_id: str) -> Process:
    yard.system.environment["SWITCHYARD_KAFKA__INSTANCE_ID"] = instance_id
    [worker] = await yard.system.start_workers(["lookup"])
    return worker


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_a_static_member_that_comes_back_in_time_moves_no_partition(yard: Yard, end: signal.Signals) -> None:
    first, second = await start_member(yard, f"{end.name}-a"), await start_member(yard, f"{end.name}-b")

    async def shared_out() -> bool:
        shares = [assignments(worker)[-1] for worker in (first, second)]
        return all(shares) and sum(map(len, shares)) == LOOKUP.partitions

    await until(shared_out, "a share for each")  # also once the members of an earlier test are given up
    before = assignments(first)
    second.child.send_signal(end)
    await second.child.wait()
    again = await start_member(yard, f"{end.name}-b")
    assert assignments(again) == assignments(second)[-1:]
    assert assignments(first) == before


async def test_of_two_processes_with_one_instance_id_the_first_ends_and_says_why(yard: Yard) -> None:
    """FENCED_INSTANCE_ID stalls aiokafka's coordination, and the two fence each other for ever (aiokafka#1186)."""
    first = await start_member(yard, "a")
    second = await start_member(yard, "a")
    assert await asyncio.wait_for(first.child.wait(), 30) == 2
    sentence = first.log.read_text().splitlines()[-1]
    assert sentence.startswith("switchyard: another process joined the group under the Kafka instance id 'a'")
    assert await second.drain() == 0
