"""The embedded stack: PostgreSQL, Valkey, the broker and the stand-in, up together and down together."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from contracts.errors import Misconfigured
from ops.embedded import proc, servers, valkey
from ops.embedded.installed import require_extra
from ops.embedded.lock import owning
from ops.embedded.ports import LOOPBACK, ChosenPorts, Ports, choose
from ops.embedded.postgres import Postgres, dsn
from ops.embedded.process import Child, Program


def _to_stderr(sentence: str) -> None:
    print(f"switchyard: {sentence}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services of a stack are, as their clients want to be told."""

    kafka: str
    postgres: str
    redis: str
    standin: str | None


class EmbeddedStack:
    """An async context manager: the services are up inside it, and no process is left after it.

    All state lies in the data directory, which one live stack owns: `postgres`, `valkey`, `broker` and `standin` hold
    data, `logs` each child's output, `password` and `ports.json` what makes the addresses the same after a restart.
    Enter it on the main thread: the children die with the thread that started them, and so at once when this process
    is killed. It handles no signals.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        with_standin: bool,
        ports: Ports = Ports(),  # noqa: B008 — frozen
        log: Callable[[str], None] = _to_stderr,
    ) -> None:
        self._dir = data_dir.expanduser().resolve()
        self._log = log
        self._with_standin = with_standin
        self._ports = ports
        self._services: list[Child] = []
        self._open = AsyncExitStack()
        self._addresses: Addresses | None = None

    @property
    def folder(self) -> Path:
        """The data directory."""
        return self._dir

    @property
    def addresses(self) -> Addresses:
        """Where the services are. Only inside the context."""
        if self._addresses is None:
            raise RuntimeError("the stack is not up")
        return self._addresses

    async def __aenter__(self) -> Self:
        """Bring the services up. Raises Misconfigured, with nothing left running."""
        require_extra()
        with _using(self._dir):
            async with AsyncExitStack() as opening:
                opening.enter_context(owning(self._dir))
                await self._end_strays()
                opening.push_async_callback(self._end_strays)
                opening.push_async_callback(_stop, self._services)
                await self._start_services()
                self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the services, and leave no process behind."""
        await self._open.aclose()

    async def run_until(self, stopping: asyncio.Event, beside: asyncio.Task[None]) -> None:
        """Keep everything up until the event is set, or what runs beside it ends: then with its error."""
        crashes = (asyncio.create_task(child.crashed()) for child in self._services)
        waits = [asyncio.create_task(stopping.wait()), asyncio.create_task(_ended(beside)), *crashes]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                finished.result()
        finally:
            for wait in waits:
                wait.cancel()

    def rss_by_process(self) -> dict[str, int]:
        """Bytes of memory of each child with its descendants, and of this process (`up`), shared pages counted once.

        Empty but on Linux.
        """
        running = {child.name: proc.tree(child.pid) for child in self._services if child.pid is not None}
        trees = {"up": [os.getpid()], **running}
        sizes = {name: sum(map(proc.memory_bytes, pids)) for name, pids in trees.items()}
        return {name: size for name, size in sizes.items() if size}

    async def _start_services(self) -> None:
        ports = choose(self._ports, self._dir / "ports.json", self._log)
        postgres = Postgres(self._dir, ports.postgres, self._log)
        password = await postgres.create()
        programs = [
            postgres.program(),
            valkey.program(self._dir, ports.redis, password),
            servers.broker(self._dir, ports.kafka),
        ]
        if self._with_standin:
            programs.append(servers.standin(self._dir, ports.standin))
        await self._start(programs)
        self._addresses = self._addresses_at(ports, password)

    async def _start(self, programs: Iterable[Program]) -> None:
        """Start all at the same time."""
        self._services.extend(Child(program, self._dir, self._log) for program in programs)
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._services:
                    group.create_task(child.start())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    def _addresses_at(self, ports: ChosenPorts, password: str) -> Addresses:
        return Addresses(
            kafka=f"{LOOPBACK}:{ports.kafka}",
            postgres=dsn(ports.postgres, password),
            redis=valkey.url(ports.redis, password),
            standin=f"http://{LOOPBACK}:{ports.standin}" if self._with_standin else None,
        )

    async def _end_strays(self) -> None:
        """End members that their stack did not: it was killed, or a child left children of its own."""
        strays = {*proc.members(self._dir), *proc.working_in(self._dir / "postgres")}
        if strays:
            self._log(f"ending {len(strays)} processes left behind in {self._dir}")
            await proc.end(strays)


async def _ended(beside: asyncio.Task[None]) -> None:
    """Wait for a task without taking it along when nobody waits any more."""
    await asyncio.shield(beside)


async def _stop(children: list[Child]) -> None:
    await asyncio.gather(*(child.stop() for child in children))
    children.clear()


@contextmanager
def _using(directory: Path) -> Iterator[None]:
    try:
        # root's PostgreSQL runs as somebody else, who must pass through; what lies inside is private all the same
        directory.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise Misconfigured(f"the data directory {directory} cannot be used: {error}") from error
