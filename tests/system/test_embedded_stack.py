import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from contracts.errors import Misconfigured
from ops.embedded import proc
from ops.embedded.account import account_for
from ops.embedded.installed import postgres_installation
from ops.embedded.ports import LOOPBACK, Ports
from ops.embedded.postgres import Postgres
from ops.embedded.process import OUR_OWN
from ops.embedded.stack import Addresses, EmbeddedStack

pytestmark = pytest.mark.system

UP = """
import asyncio, dataclasses, json, signal, sys
from pathlib import Path
from ops.embedded.stack import EmbeddedStack

async def up() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with EmbeddedStack(Path(sys.argv[1]), with_standin=False) as stack:
        print(json.dumps(dataclasses.asdict(stack.addresses)), flush=True)
        await stack.run_until(stopping, asyncio.create_task(asyncio.Event().wait()))

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(up())
else:
    asyncio.run(up())
"""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A data directory with a cluster in it; making one takes longer than most tests."""
    with tempfile.TemporaryDirectory(prefix="switchyard-test-") as directory:
        asyncio.run(Postgres(Path(directory), 1, print).create())
        yield Path(directory)


@pytest.fixture
def data_dir(template: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="switchyard-test-"))
    subprocess.run(["cp", "-a", f"{template}/.", directory], check=True)
    yield directory
    left = everyone_in(directory)
    shutil.rmtree(directory)
    assert left == []


def everyone_in(data_dir: Path) -> list[int]:
    return [*proc.members(data_dir), *proc.working_in(data_dir / "postgres")]


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def up(data_dir: Path, loop: str = "asyncio") -> AsyncIterator[subprocess.Popen[str]]:
    """A stack in a process of its own, and in a group of its own as from a terminal; ready when this is entered."""
    process = start([sys.executable, "-c", UP, data_dir, loop], stdout=subprocess.PIPE, process_group=0)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(command, text=True, **options)


def as_owner_of(cluster: Path) -> dict[str, int]:
    account = account_for(cluster)
    return {} if account == OUR_OWN else {"user": account.uid}


async def addresses_of(process: subprocess.Popen[str]) -> Addresses:
    assert process.stdout is not None
    return Addresses(**json.loads(await asyncio.to_thread(process.stdout.readline)))


async def write(addresses: Addresses, text: str) -> None:
    connection = await asyncpg.connect(addresses.postgres)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", text)
    await connection.close()
    async with redis.asyncio.from_url(addresses.redis) as client:
        await client.rpush("kept", text)
        await client.waitaof(1, 0, 10_000)
    async with AIOKafkaProducer(bootstrap_servers=addresses.kafka, acks="all") as producer:
        await producer.send_and_wait("kept", text.encode())


async def read(addresses: Addresses) -> dict[str, list[str]]:
    connection = await asyncpg.connect(addresses.postgres)
    rows = await connection.fetch("SELECT text FROM kept")
    await connection.close()
    async with redis.asyncio.from_url(addresses.redis) as client:
        values = await client.lrange("kept", 0, -1)
    return {
        "postgres": [row["text"] for row in rows],
        "redis": [value.decode() for value in values],
        "kafka": await read_topic(addresses.kafka),
    }


async def read_topic(bootstrap: str) -> list[str]:
    consumer = AIOKafkaConsumer("kept", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with consumer:
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        texts: list[str] = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                texts.extend(record.value.decode() for record in records)
        return texts


async def create_topic(addresses: Addresses) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka)
    await admin.start()
    await admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    await admin.close()


def everywhere(*texts: str) -> dict[str, list[str]]:
    return {"postgres": list(texts), "redis": list(texts), "kafka": list(texts)}


async def test_a_restart_finds_data_and_addresses_again(data_dir: Path) -> None:
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        first = stack.addresses
        await create_topic(first)
        await write(first, "before")
    assert everyone_in(data_dir) == []
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        assert stack.addresses == first
        await write(first, "after")
        assert await read(first) == everywhere("before", "after")


async def test_killing_everything_at_once_loses_nothing_acknowledged(data_dir: Path) -> None:
    async with up(data_dir) as process:
        addresses = await addresses_of(process)
        await create_topic(addresses)
        await write(addresses, "acknowledged")
        for pid in [process.pid, *everyone_in(data_dir)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        assert stack.addresses == addresses
        assert await read(addresses) == everywhere("acknowledged")


async def test_nobody_outlives_a_killed_owner(data_dir: Path) -> None:
    async with up(data_dir) as process:
        await addresses_of(process)
        assert len(everyone_in(data_dir)) >= 3
        process.kill()

        async def nobody_is_left() -> bool:
            return not everyone_in(data_dir)

        await until(nobody_is_left)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_whole_terminal_ends_everything(
    data_dir: Path, number: signal.Signals, loop: str
) -> None:
    async with up(data_dir, loop=loop) as process:
        await addresses_of(process)
        os.killpg(process.pid, number)
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert everyone_in(data_dir) == []
    assert "database system is shut down" in (data_dir / "logs" / "postgres.log").read_text()


async def test_killed_services_come_back_on_their_addresses_with_their_data(data_dir: Path) -> None:
    said: list[str] = []
    async with EmbeddedStack(data_dir, with_standin=False, log=said.append) as stack:
        await create_topic(stack.addresses)
        await write(stack.addresses, "before")
        for pid in everyone_in(data_dir):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        async def all_are_back() -> bool:
            return {f"{name} is up again" for name in ("postgres", "valkey", "broker")} <= set(said)

        await until(all_are_back)
        assert await read(stack.addresses) == everywhere("before")


async def test_a_postmaster_killed_alone_takes_its_orphans_along(data_dir: Path) -> None:
    said: list[str] = []
    async with EmbeddedStack(data_dir, with_standin=False, log=said.append) as stack:
        connection = await asyncpg.connect(stack.addresses.postgres)
        busy = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1000000000000)"))
        orphan = await backend_of(stack.addresses, "generate_series")
        postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)

        async def it_is_back() -> bool:
            return "postgres is up again" in said

        await until(it_is_back)
        assert orphan not in proc.working_in(data_dir / "postgres")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await busy
        connection.terminate()
    assert any(re.fullmatch(r"ending \d+ processes that a killed PostgreSQL left behind", line) for line in said)


async def backend_of(addresses: Addresses, query_part: str) -> int:
    found: list[int] = []

    async def it_runs() -> bool:
        watcher = await asyncpg.connect(addresses.postgres)
        sql = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%' || $1 || '%'"
        found.extend(row["pid"] for row in await watcher.fetch(sql, query_part))
        await watcher.close()
        return bool(found)

    await until(it_runs)
    return found[0]


async def test_a_server_left_over_from_another_owner_is_ended_first(data_dir: Path) -> None:
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        await create_topic(stack.addresses)
        await write(stack.addresses, "kept")
        addresses = stack.addresses
    cluster, port = data_dir / "postgres", json.loads((data_dir / "ports.json").read_text())["postgres"]
    stranger = start(
        [postgres_installation() / "bin" / "postgres", "-D", cluster, "-h", LOOPBACK, "-p", str(port), "-k", ""],
        cwd="/",
        stderr=subprocess.DEVNULL,
        **as_owner_of(cluster),
    )

    async def it_is_up() -> bool:
        with suppress(OSError):
            return "ready" in (cluster / "postmaster.pid").read_text()
        return False

    await until(it_is_up)
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        assert stranger.wait(10) == -signal.SIGKILL
        assert stack.addresses == addresses
        assert await read(addresses) == everywhere("kept")


async def test_a_lock_file_whose_pid_now_belongs_to_somebody_else_does_no_harm(data_dir: Path) -> None:
    async with EmbeddedStack(data_dir, with_standin=False):
        pass
    bystander = start(["sleep", "60"], **as_owner_of(data_dir / "postgres"))
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{bystander.pid}\n{data_dir / 'postgres'}\n1\n1\n\n\n1 1\n")
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        connection = await asyncpg.connect(stack.addresses.postgres)
        await connection.close()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


async def test_a_cluster_whose_making_was_cut_short_is_made_anew(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "postgres")
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        connection = await asyncpg.connect(stack.addresses.postgres)
        assert await connection.fetchval("SELECT lower('ÄÖ')") == "äö"
        await connection.close()


async def test_a_second_stack_on_a_live_directory_is_refused_naming_the_first(data_dir: Path) -> None:
    async with up(data_dir) as process:
        addresses = await addresses_of(process)
        with pytest.raises(Misconfigured, match=rf"already up on {data_dir} \(process {process.pid}\)"):
            await EmbeddedStack(data_dir, with_standin=False).__aenter__()
        connection = await asyncpg.connect(addresses.postgres)
        await connection.close()
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)


async def test_a_taken_port_is_refused_before_anything_starts(data_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {taken} is taken.*--kafka-port"):
            await EmbeddedStack(data_dir, with_standin=False, ports=Ports(kafka=taken)).__aenter__()
    assert not (data_dir / "logs").exists()


async def test_a_data_directory_may_lie_deeper_than_a_socket_could(data_dir: Path) -> None:
    deep = data_dir / ("d" * 120) / "with space and 'quotes\""
    async with EmbeddedStack(deep, with_standin=False) as stack:
        await create_topic(stack.addresses)
        await write(stack.addresses, "deep")
        assert await read(stack.addresses) == everywhere("deep")
    assert everyone_in(deep) == []


async def test_strangers_cannot_log_in_and_cannot_read_what_is_stored(data_dir: Path) -> None:
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        port = stack.addresses.postgres.rpartition(":")[2].partition("/")[0]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:guess@{LOOPBACK}:{port}/postgres")
        with pytest.raises(redis.exceptions.AuthenticationError):
            async with redis.asyncio.from_url(
                stack.addresses.redis.replace(":", ":x", 2).replace("x//", "//")
            ) as client:
                await client.ping()
    assert open_to_others(data_dir) == []


def open_to_others(data_dir: Path) -> list[str]:
    return [path.name for path in data_dir.iterdir() if path.is_dir() and path.stat().st_mode & 0o077]


async def test_memory_is_told_for_every_process(data_dir: Path) -> None:
    async with EmbeddedStack(data_dir, with_standin=True) as stack:
        sizes = stack.rss_by_process()
        assert asdict(stack.addresses)["standin"].startswith(f"http://{LOOPBACK}:")
    assert set(sizes) == {"up", "postgres", "valkey", "broker", "standin"}
    assert all(1_000_000 < size < 500_000_000 for size in sizes.values())
