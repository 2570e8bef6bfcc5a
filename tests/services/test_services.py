"""The services themselves: what every test that uses them relies on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis

from tests.services.native import Service, data_folder
from tests.services.postgres import Postgres, can_connect
from tests.services.reaper import Reaper
from tests.services.redis import answers_ping


async def publish(bootstrap: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def read_all(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def create_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


@pytest.mark.kafka
async def test_kafka_keeps_its_records_and_its_address_when_it_is_killed(
    kafka_bootstrap: str, kafka_server: Service
) -> None:
    await create_topic(kafka_bootstrap, "services-killed")
    await publish(kafka_bootstrap, "services-killed", b"before")
    await asyncio.to_thread(kafka_server.kill)
    await asyncio.to_thread(kafka_server.start)
    await publish(kafka_bootstrap, "services-killed", b"after")
    assert await read_all(kafka_bootstrap, "services-killed", 2) == [b"before", b"after"]


@pytest.mark.kafka
async def test_kafka_creates_no_topic_by_itself(kafka_bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        await admin.describe_topics(["services-never-created"])
        assert "services-never-created" not in await admin.list_topics()
    finally:
        await admin.close()


@pytest.mark.postgres
@pytest.mark.every_postgres
@pytest.mark.parametrize("_time", [1, 2])
async def test_each_test_has_an_empty_database_of_its_own(postgres_dsn: str, _time: int) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        await connection.execute("CREATE TABLE left_behind ()")
    finally:
        await connection.close()


@pytest.mark.postgres
async def test_postgres_keeps_what_was_committed_when_it_is_killed(
    postgres_dsn: str, postgres_server: Postgres
) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    await asyncio.to_thread(postgres_server.service.kill)
    assert not can_connect(postgres_server.host, postgres_server.port)
    connection.terminate()
    await asyncio.to_thread(postgres_server.service.start)
    connection = await asyncpg.connect(postgres_dsn)
    assert await connection.fetchval("SELECT one FROM kept") == 1
    await connection.close()


@pytest.mark.redis
@pytest.mark.parametrize("_time", [1, 2])
def test_redis_is_empty_for_each_test(redis_url: str, _time: int) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


@pytest.mark.redis
def test_a_frozen_redis_is_healed(redis_url: str, redis_server: Service) -> None:
    redis_server.pause()
    assert not answers_ping(redis_url)
    redis_server.heal()
    assert answers_ping(redis_url)


def test_what_a_killed_pytest_leaves_behind_is_ended_and_removed(reaper: Reaper) -> None:
    folder = data_folder("reaped", reaper)
    script = (
        "import subprocess, sys, time, pathlib\n"
        "from tests.services.reaper import Reaper\n"
        "sleeper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "reaper = Reaper()\n"
        "reaper.watch(sleeper.pid)\n"
        f"reaper.remove(pathlib.Path({str(folder)!r}))\n"
        "print(sleeper.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    sleeper = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert becomes_true(lambda: not is_alive(sleeper) and not folder.exists(), within_s=10)


def becomes_true(condition: Callable[[], bool], within_s: float) -> bool:
    limit = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or " Z " not in stat.read_text()
