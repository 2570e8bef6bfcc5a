"""One child process of the stack: started, awaited until ready, kept up, ended."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from contracts.errors import Misconfigured
from ops.embedded import launch
from ops.embedded.proc import MARKER, StillRunning
from ops.logs import last_words, open_log

_POLL_S = 0.02
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 60.0  # who ran this long starts again without a longer pause


class DidNotStart(Misconfigured):
    """A child ended, or was not ready in time; the message ends with its last lines."""


class Account(NamedTuple):
    """Whom a child runs as."""

    uid: int
    gid: int


OUR_OWN = Account(launch.UNCHANGED, launch.UNCHANGED)
"""The account of this process."""


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Program:
    """How a child is run. Its output goes to `logs/NAME.log`; it gets a session of its own, which no Ctrl-C reaches."""

    name: str
    command: Sequence[str]
    ready: Callable[[int], Awaitable[bool]]  # asked with its process id until it says yes
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    account: Account = OUR_OWN
    prepare: Callable[[], Awaitable[None]] = _nothing  # before every start, the first one too
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL  # ends it at once; also sent when the stack itself is killed
    ready_within_s: float = 60.0
    stop_within_s: float = 10.0


class Child:
    """A program that is kept running from `start` until `stop`."""

    def __init__(self, program: Program, stack_dir: Path, log: Callable[[str], None]) -> None:
        self._program = program
        self._stack_dir = stack_dir
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What the child is called in logs."""
        return self._program.name

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Bring it up and keep it up. Raises DidNotStart, with nothing left running."""
        await self._bring_up()
        self._keeper = asyncio.create_task(self._keep_up(), name=f"keep {self.name} up")

    async def stop(self) -> None:
        """End it for good: gently first, then at once. Safe to call at any time, also twice."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._signal(self._program.stop_signal)
        if not await self._ended_within(self._program.stop_within_s):
            self._log(f"{self.name} did not stop within {self._program.stop_within_s:g} s and was killed")
            await self._end_now()

    async def crashed(self) -> None:
        """Return only with the error of the code that keeps it up: a bug."""
        if self._keeper:
            await asyncio.shield(self._keeper)

    async def _keep_up(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._process:
            began = asyncio.get_running_loop().time()
            code = await self._process.wait()
            steady = asyncio.get_running_loop().time() - began > _STEADY_S
            pause_s = _FIRST_PAUSE_S if steady else pause_s
            self._log(f"{self.name} ended unexpectedly ({_how(code)}) and is started again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            await self._try_again()

    async def _try_again(self) -> None:
        try:
            await self._bring_up()
        except DidNotStart as error:
            self._log(str(error))
        else:
            self._log(f"{self.name} is up again")

    async def _bring_up(self) -> None:
        try:
            await self._program.prepare()
            with self._opened_log() as output:
                process = self._process = await self._spawn(output)
            await self._until_ready(process)
        except BaseException as error:  # also when the start is called off: nothing may stay behind
            await self._end_now()
            if isinstance(error, OSError | StillRunning):
                raise DidNotStart(f"{self.name} cannot be started: {error}") from error
            raise

    async def _spawn(self, output: BinaryIO) -> asyncio.subprocess.Process:
        program = self._program
        return await spawn(
            program.command,
            self._stack_dir,
            output,
            env=program.env,
            cwd=program.cwd,
            account=program.account,
            orphan_signal=program.kill_signal,
        )

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        limit = asyncio.get_running_loop().time() + self._program.ready_within_s
        while not await self._program.ready(process.pid):
            if process.returncode is not None:
                raise DidNotStart(
                    f"{self.name} did not come up ({_how(process.returncode)}); {last_words(self._log_path)}"
                )
            if asyncio.get_running_loop().time() > limit:
                within = f"{self._program.ready_within_s:g} s"
                raise DidNotStart(f"{self.name} was not ready within {within}; {last_words(self._log_path)}")
            await asyncio.sleep(_POLL_S)

    async def _ended_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _end_now(self) -> None:
        self._signal(self._program.kill_signal)
        if not await self._ended_within(5):
            self._signal(signal.SIGKILL)
            await self._ended_within(5)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @property
    def _log_path(self) -> Path:
        return self._stack_dir / "logs" / f"{self.name}.log"

    def _opened_log(self) -> BinaryIO:
        self._log_path.parent.mkdir(mode=0o700, exist_ok=True)
        return open_log(self._log_path)


def tied(
    command: Sequence[str], *, account: Account = OUR_OWN, orphan_signal: signal.Signals = signal.SIGKILL
) -> Sequence[str]:
    """The command that becomes another one, which gets a signal when this process dies."""
    script = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(orphan_signal))]
    return [*script, *map(str, account), *command]


async def spawn(
    command: Sequence[str],
    stack_dir: Path,
    output: int | BinaryIO,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    account: Account = OUR_OWN,
    orphan_signal: signal.Signals = signal.SIGKILL,
) -> asyncio.subprocess.Process:
    """Start a member of a stack, which gets a signal when this process dies."""
    return await asyncio.create_subprocess_exec(
        *tied(command, account=account, orphan_signal=orphan_signal),
        env={**env, MARKER: str(stack_dir)},
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
