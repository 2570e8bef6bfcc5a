"""A post: the place of one worker process, kept whoever started it. The kernel says whether somebody is there.

Its worker inherits a lock on the post's file and holds it for as long as it lives, however it ends. So a supervisor
that comes after another finds who is at work, and no post is ever taken twice.
"""

import fcntl
import logging
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ops.logs import open_log

_log = logging.getLogger(__name__)

Command = Callable[[str, int, int], Sequence[str]]
"""What runs a worker: of an agent, at the post of a number, with the lock as this file descriptor."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a worker."""

    stop_within_s: float  # then one that was asked to drain is killed
    first_pause_s: float = 0.5  # before one that ended by itself is started again; doubles each time
    longest_pause_s: float = 30.0
    steady_s: float = 60.0  # who ran so long failed anew, not again


class Post:
    """The n-th worker of an agent. `keep` or `let_go` is called again and again; neither waits."""

    def __init__(
        self,
        folder: Path,
        agent: str,
        number: int,
        command: Command,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment`: its worker's; None: this process's."""
        self.agent = agent
        self.number = number
        self.output = folder / f"{agent}-{number}.log"
        self._lock = folder / f"{agent}-{number}.lock"
        self._command = command
        self._environment = environment
        self._patience = patience
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None  # None too when another supervisor started it
        self._since_s: float | None = None  # it was seen at work
        self._told_s: float | None = None  # it was asked to drain
        self._failures = 0
        self._due_s = 0.0  # before that it is not started again

    @property
    def has_failed(self) -> bool:
        """Whether a worker of it ended by itself."""
        return self._failures > 0

    @property
    def pid(self) -> int | None:
        """The process at work here, once it has written that down."""
        with suppress(OSError, ValueError):
            return int(self._lock.read_text())
        return None

    def is_taken(self) -> bool:
        """Whether a worker is here."""
        if self._child is not None:
            self._child.poll()
        try:
            descriptor = self._locked()
        except BlockingIOError:
            return True
        os.close(descriptor)
        return False

    def keep(self) -> None:
        """See that a worker is here: start one where there is none, after a pause where one just failed."""
        now_s = self._clock()
        if self.is_taken():
            self._since_s = now_s if self._since_s is None else self._since_s
            if self._told_s is not None:
                self._end(now_s)
            return
        if self._since_s is not None:
            self._has_ended(now_s)
        if now_s >= self._due_s:
            self._start(now_s)

    def let_go(self) -> bool:
        """See that no worker is here: one that is drains, and is killed when that takes too long. True: none is."""
        if not self.is_taken():
            self._since_s = self._told_s = None
            self._failures, self._due_s = 0, 0.0
            return True
        self._end(self._clock())
        return False

    def _start(self, now_s: float) -> None:
        descriptor = self._locked()
        try:
            os.ftruncate(descriptor, 0)
            with open_log(self.output) as output:
                self._child = subprocess.Popen(
                    self._command(self.agent, self.number, descriptor),
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(descriptor,),
                    start_new_session=True,  # no signal meant for the supervisor reaches it
                )
        finally:
            os.close(descriptor)
        self._since_s = now_s
        _log.info("started worker %d of %s as process %d", self.number, self.agent, self._child.pid)

    def _has_ended(self, now_s: float) -> None:
        assert self._since_s is not None
        if self._told_s is None:
            steady = now_s - self._since_s > self._patience.steady_s
            self._failures = 1 if steady else self._failures + 1
            doubled_s = self._patience.first_pause_s * 2.0 ** min(self._failures - 1, 16)
            pause_s = min(doubled_s, self._patience.longest_pause_s) * random.uniform(0.5, 1.0)
            self._due_s = now_s + pause_s
            _log.warning(
                "worker %d of %s ended by itself and is started again in %.1f s; %s says why",
                *(self.number, self.agent, pause_s, self.output),
            )
        self._since_s = self._told_s = None

    def _end(self, now_s: float) -> None:
        pid = self.pid
        if pid is None:  # it has only just been started; asked again soon
            return
        if self._told_s is None:
            self._told_s = now_s
            _signal(pid, signal.SIGTERM)
        elif now_s - self._told_s > self._patience.stop_within_s:
            _log.warning("worker %d of %s did not drain in time and is killed", self.number, self.agent)
            _signal(pid, signal.SIGKILL)

    def _locked(self) -> int:
        """The post's file, locked. Raises BlockingIOError: a worker is here."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return descriptor


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
