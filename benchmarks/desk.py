"""One agent's workers under the supervisor, on a database of their own, and what is seen of them from outside."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.database import Databases, number
from bus.connection import KafkaConnection
from bus.groups import Group, groups
from bus.publisher import Publisher
from contracts.control import Scale
from contracts.topics import TICKETS
from state.pool import open_pool
from state.scales import PostgresScales

AGENT = "triage"
_WITHIN_S = 90.0
_LOOK_EVERY_S = 0.5
_HANDLED = f"SELECT count(*) FROM inbox WHERE group_name = '{AGENT}'"

Timeline = Sequence[tuple[float, int, int]]
"""Seconds since a burst began, tickets that triage has not finished, workers."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Triage with as many workers as are wanted."""

    kafka: KafkaConnection
    dsn: str
    folder: Path
    environment: Mapping[str, str]

    async def scale(self, workers: int) -> None:
        """Have so many workers, and wait until they share the topic."""
        async with open_pool(self.dsn, max_size=1) as pool:
            await PostgresScales(pool).decide(Scale(AGENT, workers, "benchmark"))
        async with groups(self.kafka) as asked, asyncio.timeout(_WITHIN_S):
            while not _shared_by(workers, await asked.describe(AGENT, TICKETS.name)):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)

    @contextlib.asynccontextmanager
    async def autoscaled(self) -> AsyncIterator[None]:
        """Let an autoscaler decide meanwhile."""
        async with _running("autoscale", AGENT, "--run", "--json", environment=self.environment, folder=self.folder):
            yield

    async def burst(self, tickets: int, settled_at: int | None = None) -> Timeline:
        """Publish tickets at once, no two alike, and watch until they are handled, and until there are so many workers.

        Raises TimeoutError: that takes longer than a second a ticket.
        """
        before, began, name = await number(self.dsn, _HANDLED), time.monotonic(), uuid.uuid4().hex[:8]
        async with Publisher(self.kafka) as publisher:
            await publisher.publish_bare((f"{name}-{n}", _ticket(f"{name}-{n}")) for n in range(tickets))
        seen = [(0.0, tickets, self.at_work())]
        async with asyncio.timeout(_WITHIN_S + tickets):
            while seen[-1][1] or settled_at not in (None, seen[-1][2]):
                await asyncio.sleep(_LOOK_EVERY_S)
                open_ = before + tickets - await number(self.dsn, _HANDLED)
                seen.append((time.monotonic() - began, open_, self.at_work()))
        return seen

    def at_work(self) -> int:
        """How many worker processes there are."""
        return sum(_lives(path.read_text()) for path in self.folder.glob(f"{AGENT}-*.lock"))

    async def decisions(self) -> Sequence[Scale]:
        """What was decided, in its order."""
        async with open_pool(self.dsn, max_size=1) as pool:
            return (await PostgresScales(pool).decisions(AGENT, limit=1000))[::-1]

    async def advice(self) -> Scale | None:
        """What the autoscaler found last."""
        async with open_pool(self.dsn, max_size=1) as pool:
            return await PostgresScales(pool).advice(AGENT)


@contextlib.asynccontextmanager
async def desk(bench: Bench, databases: Databases, environment: Mapping[str, str]) -> AsyncIterator[Desk]:
    """A supervisor without workers yet; at the end they are drained."""
    async with databases.fresh() as dsn:
        with tempfile.TemporaryDirectory() as folder:
            bootstrap = bench.cluster.bootstrap
            await bench.cluster.skip_to_end(AGENT, TICKETS.name)
            services = {"SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": bootstrap, "SWITCHYARD_POSTGRES__DSN": dsn}
            opened = Desk(KafkaConnection(bootstrap), dsn, Path(folder), {**os.environ, **services, **environment})
            options = ("--dir", folder, "--workers", "0", "--json")
            async with _running("supervise", *options, environment=opened.environment, folder=opened.folder):
                yield opened


@contextlib.asynccontextmanager
async def _running(*arguments: str, environment: Mapping[str, str], folder: Path) -> AsyncIterator[None]:
    """A command that says when it is ready, until SIGTERM."""
    with (folder / f"{arguments[0]}.err").open("wb") as complaints:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
        )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(_WITHIN_S):
            if not await child.stdout.readline():
                raise RuntimeError(f"{arguments[0]} ended: {(folder / complaints.name).read_text()[-2000:]}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        async with asyncio.timeout(_WITHIN_S):
            await child.wait()


def _shared_by(workers: int, group: Group) -> bool:
    return group.state == "Stable" and len(group.members) == workers


def _ticket(ticket_id: str) -> bytes:
    """Unlike any other, so that no answer is found in the cache."""
    return json.dumps({"ticket_id": ticket_id, "body": f"Where is my order {ticket_id}? It is late."}).encode()


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    return True
