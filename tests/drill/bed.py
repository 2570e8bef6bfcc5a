"""The test bed: Apache Kafka, PostgreSQL and Redis of the drill's own, each also behind proxies.

Workers only know the proxies. There are two ways to Kafka and two to PostgreSQL, so that a worker can lose one of
them while its neighbour does not. The drill itself goes straight to the servers.
"""

import asyncio
import base64
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from contracts.topics import CATALOGUE
from tests.drill.proxy import Proxy, Weather, proxying
from tests.drill.taps import KafkaMischief, KafkaTap, PostgresMischief, PostgresTap
from tests.services.choice import required
from tests.services.kafka import SETTINGS, VERSION, answers_kafka, cached_jars, find_java
from tests.services.native import NativeService, data_folder, free_port, run
from tests.services.postgres import Postgres, native_postgres, wheel_binaries
from tests.services.reaper import Reaper
from tests.services.redis import native_redis

WAYS = 2
ROLE = "drill"  # workers are no superusers: those are exempt from limits on connections
_KAFKA_SETTINGS = SETTINGS | {
    "group.min.session.timeout.ms": "1000",
    "broker.session.timeout.ms": "3000",
    "offsets.topic.num.partitions": "1",
}


@dataclass
class Bed:
    """The servers and the ways to them."""

    reaper: Reaper
    kafka: NativeService
    kafka_direct: str
    postgres: Postgres
    redis: NativeService
    redis_direct: str
    kafka_ways: list[Proxy] = field(default_factory=list)
    postgres_ways: list[Proxy] = field(default_factory=list)
    redis_way: Proxy = field(default_factory=lambda: Proxy("127.0.0.1", 0))
    kafka_mischief: KafkaMischief = field(default_factory=KafkaMischief)
    postgres_mischief: PostgresMischief = field(default_factory=PostgresMischief)

    @property
    def connection(self) -> KafkaConnection:
        """The drill's own way to Kafka."""
        return KafkaConnection(self.kafka_direct)

    def kafka_address(self, worker: int) -> str:
        """The bootstrap address of the worker of that number."""
        return f"127.0.0.1:{self.kafka_ways[worker % WAYS].listen}"

    def dsn(self, worker: int, database: str) -> str:
        """How the worker of that number reaches its database."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.postgres_ways[worker % WAYS].listen}/{database}"

    @property
    def redis_url(self) -> str:
        """How workers reach Redis."""
        return f"redis://127.0.0.1:{self.redis_way.listen}/0"

    @property
    def ways(self) -> list[Proxy]:
        """Every proxy."""
        return [*self.kafka_ways, *self.postgres_ways, self.redis_way]

    def weathers(self) -> list[Weather]:
        """The weather on every way."""
        return [way.weather for way in self.ways]

    async def heal(self) -> None:
        """Make everything well again, whatever was done to it."""
        self.kafka_mischief.clear()
        self.postgres_mischief.clear()
        for way in self.ways:
            way.clear()
        thaw(self.postgres)
        services = (self.kafka, self.postgres.service, self.redis)
        await asyncio.gather(*(asyncio.to_thread(service.heal) for service in services))


def freeze(postgres: Postgres) -> None:
    """Stop the server with every backend: connections stay, and nobody answers."""
    _signal_all(postgres, signal.SIGSTOP)


def thaw(postgres: Postgres) -> None:
    """Let it go on."""
    _signal_all(postgres, signal.SIGCONT)


def _signal_all(postgres: Postgres, number: signal.Signals) -> None:
    assert isinstance(postgres.service, NativeService)
    with contextlib.suppress(ProcessLookupError, AssertionError):  # it does not run
        postmaster = postgres.service.pid
        for pid in (postmaster, *_children(postmaster)):  # the postmaster first: it starts no more of them
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _children(pid: int) -> Sequence[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.asynccontextmanager
async def bed_of(reaper: Reaper) -> AsyncIterator[Bed]:
    """A bed that is made: servers up, the catalogue's topics there. Raises ServiceUnavailable: it cannot be had."""
    kafka_ways = [Proxy("127.0.0.1", free_port(), listen=free_port()) for _ in range(WAYS)]
    kafka, kafka_direct = _kafka(reaper, kafka_ways)
    postgres = native_postgres(wheel_binaries(), reaper)
    redis, redis_direct = native_redis(reaper)
    bed = Bed(reaper, kafka, kafka_direct, postgres, redis, redis_direct, kafka_ways)
    for way in kafka_ways:
        way.new_tap = lambda: KafkaTap(bed.kafka_mischief)
    bed.postgres_ways = [
        Proxy("127.0.0.1", postgres.port, new_tap=lambda: PostgresTap(bed.postgres_mischief)) for _ in range(WAYS)
    ]
    bed.redis_way = Proxy("127.0.0.1", int(redis_direct.rsplit(":", 1)[1].split("/")[0]))
    services = (kafka, postgres.service, redis)
    try:
        await asyncio.gather(*(asyncio.to_thread(service.start) for service in services))
        await asyncio.to_thread(postgres.execute, f"CREATE ROLE {ROLE} LOGIN CREATEDB")
        await apply_topics(bed.connection, CATALOGUE)
        async with contextlib.AsyncExitStack() as open_until_the_end:
            for way in bed.ways:
                await open_until_the_end.enter_async_context(proxying(way))
            yield bed
    finally:
        thaw(postgres)
        await asyncio.gather(*(asyncio.to_thread(service.stop) for service in services))


def _kafka(reaper: Reaper, ways: Sequence[Proxy]) -> tuple[NativeService, str]:
    """A formatted node with a listener behind each way, advertised as the way's own port."""
    jars, java = cached_jars(may_install=required()), find_java(may_install=required())
    folder = data_folder("drill-kafka", reaper)
    port, controller = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(_properties(folder, port, controller, ways))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    classpath = str(jars / "*")
    format_it = [java, "-cp", classpath, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}"]
    run([*format_it, "-c", str(properties)], doing="formatting Kafka's storage", cwd=folder)
    memory = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms256m", "-Xmx768m", "-XX:+ExitOnOutOfMemoryError"]
    service = NativeService(
        name=f"Apache Kafka {VERSION}",
        command=[java, *memory, "-cp", classpath, "kafka.Kafka", str(properties)],
        folder=folder,
        reaper=reaper,
        answers=lambda: answers_kafka(port),
    )
    return service, f"127.0.0.1:{port}"


def _properties(folder: Path, port: int, controller: int, ways: Sequence[Proxy]) -> str:
    names = ["DIRECT", *(f"WAY{n}" for n in range(len(ways)))]
    listeners = [f"DIRECT://127.0.0.1:{port}", *(f"WAY{n}://127.0.0.1:{way.port}" for n, way in enumerate(ways))]
    told = [f"DIRECT://127.0.0.1:{port}", *(f"WAY{n}://127.0.0.1:{way.listen}" for n, way in enumerate(ways))]
    own = {
        "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(told),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in [*names, "CONTROLLER"]),
        "inter.broker.listener.name": "DIRECT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": f"{folder}/data",
    }
    return "".join(f"{name}={value}\n" for name, value in (_KAFKA_SETTINGS | own).items())
