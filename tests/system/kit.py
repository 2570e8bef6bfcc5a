"""Whole processes of ours on real services: workers by `switchyard run`, the model stand-in, and what they left."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from contracts.topics import all_topics
from tests.services.reaper import Reaper

AGENTS = ("triage", "lookup", "reasoning", "effects")


async def until(condition: Callable[[], Awaitable[bool]], what: str, limit_s: float = 120) -> None:
    """Return once the condition holds; fail saying what did not come about."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < limit_s, f"{what} did not come about within {limit_s:g} s"
        await asyncio.sleep(0.05)


async def with_fresh_topics(connection: KafkaConnection) -> None:
    """Leave every topic of the catalogue there and empty, and no group with offsets on them."""
    names = {topic.name for topic in all_topics()}
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    try:
        if old := names & set(await admin.list_topics()):
            await admin.delete_topics(sorted(old))

        async def gone() -> bool:
            return not names & set(await admin.list_topics())

        await until(gone, "the deletion of the old topics")
    finally:
        await admin.close()
    await apply_topics(connection)


@dataclass
class Process:
    """A child process and the file its output goes to."""

    name: str
    child: asyncio.subprocess.Process
    log: Path

    def kill(self) -> None:
        """End it as a crash would."""
        self.child.send_signal(signal.SIGKILL)

    async def drain(self, limit_s: float = 60) -> int:
        """Ask it to stop, and return its exit code."""
        if self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.child.wait(), limit_s)


@dataclass
class System:
    """The stand-in and the workers of one test."""

    folder: Path
    environment: dict[str, str]  # of every process started from now on
    reaper: Reaper
    standin_url: str = ""
    workers: list[Process] = field(default_factory=list)
    _others: list[Process] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def ledger(self) -> Path:
        """Every call the stand-in answered, one JSON object a line."""
        return self.folder / "ledger.jsonl"

    def calls(self) -> list[dict[str, Any]]:
        """The calls of the ledger, in order."""
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def paid_calls(self) -> list[dict[str, Any]]:
        """Those that were paid for."""
        return [call for call in self.calls() if call["paid"]]

    async def start_standin(self, *, latency_ms: int = 0) -> None:
        """Start the model stand-in with its ledger."""
        port_file = self.folder / "standin.port"
        arguments = ["--port", "0", "--port-file", str(port_file), "--ledger", str(self.ledger)]
        process = await self._spawn("standin", "llm.standin", *arguments, "--latency-ms", str(latency_ms))
        self._others.append(process)
        await self._until_says(process, port_file, "")
        self.standin_url = f"http://127.0.0.1:{port_file.read_text().strip()}"

    async def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Have the stand-in do wrong what the rules say, and nothing else."""
        body = json.dumps(list(rules)).encode()
        request = urllib.request.Request(f"{self.standin_url}/faults", body, {"content-type": "application/json"})
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).close())

    async def start_workers(self, agents: Sequence[str], *arguments: str) -> list[Process]:
        """Start a worker of each agent named, or what the arguments make of it; returns once all take records."""
        return list(await asyncio.gather(*(self._start_worker(agent, *arguments) for agent in agents)))

    async def _start_worker(self, agent: str, *arguments: str) -> Process:
        own = {"SWITCHYARD_LLM__STANDIN_URL": self.standin_url}
        process = await self._switchyard("run", agent, "--json", *arguments, env=own)
        await self._until_says(process, process.log, '{"ready"')
        return process

    async def run(self, *arguments: str, limit_s: float = 120) -> tuple[int, str]:
        """Run a command to its end; returns its exit code and all it wrote."""
        process = await self._switchyard(*arguments)
        return await asyncio.wait_for(process.child.wait(), limit_s), process.log.read_text()

    async def _switchyard(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        name = f"{'-'.join(arguments[:2])}-{next(self._numbers)}"
        process = await self._spawn(name, "evals.cli", *arguments, env=env)
        self.workers.append(process)
        return process

    async def _spawn(self, name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                stdout=output,
                stderr=output,
                env={**self.environment, **(env or {})},
                start_new_session=True,
            )
        self.reaper.watch(child.pid)
        return Process(name, child, log)

    async def _until_says(self, process: Process, path: Path, words: str) -> None:
        async def said() -> bool:
            assert process.child.returncode is None, f"{process.name} ended:\n{process.log.read_text()[-2000:]}"
            return path.exists() and words in path.read_text()

        await until(said, f"{process.name} being ready")

    async def stop(self) -> None:
        """Drain what still runs, workers first."""
        for group in (self.workers, self._others):
            await asyncio.gather(*(process.drain() for process in group))
            for process in group:
                self.reaper.forget(process.child.pid)


@contextlib.asynccontextmanager
async def system(folder: Path, reaper: Reaper, services: Mapping[str, str]) -> AsyncIterator[System]:
    """A system on the services given by their SWITCHYARD_ variables; nothing of it runs afterwards."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SWITCHYARD_") and not k.endswith("_API_KEY")}
    started = System(folder, {**inherited, **services}, reaper)
    try:
        yield started
    finally:
        await started.stop()
