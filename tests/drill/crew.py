"""The crew: worker processes, started, broken and started again as a supervisor would."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.drill.hooks import Order, give
from tests.drill.ledger import Ledger, read_ledgers
from tests.drill.station import Station
from tests.services.reaper import Reaper

_RESTART_AFTER_S = 0.3
_READY_WITHIN_S = 40.0
_STOP_WITHIN_S = 20.0


@dataclass
class Member:
    """One place in a group. Its process is started again when it ends, until the member is dismissed."""

    name: str
    station: Station
    skew_s: float = 0.0
    process: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None
    dismissed: bool = False
    condemned: bool = False  # its next end is the drill's doing

    @property
    def pid(self) -> int:
        """The process id. Raises AssertionError: it does not run now."""
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is somebody to hear it."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the process as a crash would."""
        self.condemned = True
        self.send(signal.SIGKILL)

    def order(self, order: Order) -> None:
        """Have it do something at a hook."""
        self.condemned = self.condemned or order.do == "kill"
        give(Path(self.station.folder), self.name, order)


@dataclass
class Crew:
    """All members of a run."""

    folder: Path
    reaper: Reaper
    ledger: Ledger
    members: list[Member] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # who ended by itself, and how
    _names: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def of(self, kind: str) -> list[Member]:
        """The members of a kind that are not dismissed."""
        return [m for m in self.members if m.station.kind == kind and not m.dismissed]

    async def hire(self, station: Station, *, skew_s: float = 0.0, wait: bool = True) -> Member:
        """Start a member; returns when it takes records, or at once."""
        member = Member(f"{station.kind}-{next(self._names)}", station, skew_s)
        self.members.append(member)
        await self._start(member)
        member.keeper = asyncio.create_task(self._keep(member))
        if wait:
            await self.until_ready(member)
        return member

    async def until_ready(self, member: Member) -> None:
        """Return when the member's process of now takes records. Raises TimeoutError: it does not."""
        async with asyncio.timeout(_READY_WITHIN_S):
            while not (member.process and member.process.pid in self._ready(member)):
                await asyncio.sleep(0.05)

    async def dismiss(self, member: Member, *, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End a member for good; one that ignores SIGTERM for long is noted and killed."""
        member.dismissed = True
        member.condemned = member.condemned or with_signal == signal.SIGKILL
        member.send(signal.SIGCONT)
        member.send(with_signal)
        assert member.keeper is not None
        try:
            await asyncio.wait_for(asyncio.shield(member.keeper), _STOP_WITHIN_S)
        except TimeoutError:
            self.ended.append(f"{member.name} did not stop within {_STOP_WITHIN_S:g} s of SIGTERM")
            member.send(signal.SIGKILL)
            await member.keeper

    async def close(self) -> None:
        """Dismiss everybody."""
        await asyncio.gather(*(self.dismiss(member) for member in self.members if not member.dismissed))

    def _ready(self, member: Member) -> set[int]:
        lines = read_ledgers(self.folder, f"{member.name}.ledger")
        return {line["pid"] for line in lines if line["what"] == "ready"}

    async def _start(self, member: Member) -> None:
        config = self.folder / f"{member.name}.json"
        config.write_text(json.dumps({"worker": member.name, "skew_s": member.skew_s, **asdict(member.station)}))
        with (self.folder / f"{member.name}.log").open("ab") as log:
            member.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.drill.worker", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
                env=_environment(),
                start_new_session=True,
            )
        self.reaper.watch(member.process.pid)
        self.ledger.note("started", worker=member.name, process=member.process.pid)

    async def _keep(self, member: Member) -> None:
        while True:
            process = member.process
            assert process is not None
            code = await process.wait()
            self.reaper.forget(process.pid)
            self.ledger.note("exit", worker=member.name, code=code, dismissed=member.dismissed)
            self._note_end(member, process, code)
            if not member.dismissed:
                await asyncio.sleep(_RESTART_AFTER_S)
            if member.dismissed:  # perhaps while we slept
                return
            await self._start(member)

    def _note_end(self, member: Member, process: asyncio.subprocess.Process, code: int) -> None:
        """Note an end that nobody asked for. One that never took records could not start: a supervisor's business."""
        condemned, member.condemned = member.condemned and code == -signal.SIGKILL, False
        asked = member.dismissed and code in (0, -signal.SIGKILL)
        if not condemned and not asked and process.pid in self._ready(member):
            self.ended.append(f"{member.name} ended by itself with code {code}")


def _environment() -> Mapping[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SWITCHYARD_") and not k.endswith("_API_KEY")}
