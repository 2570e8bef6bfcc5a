"""A server as a process of our own: started, paused, killed and started again on the same port and data."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.services.reaper import Reaper


class ServiceUnavailable(Exception):
    """A service cannot be had on this machine; the message says what would help."""


class Service(Protocol):
    """What tests may do to a server, wherever it runs. Its address and its data stay the same throughout."""

    def start(self) -> None:
        """Start it and return when it answers."""

    def stop(self) -> None:
        """Shut it down in order."""

    def kill(self) -> None:
        """End it without a chance to clean up, as SIGKILL does."""

    def pause(self) -> None:
        """Freeze it: connections stay open and nobody answers."""

    def resume(self) -> None:
        """Let a frozen server go on."""

    def heal(self) -> None:
        """Make it run and answer again, whatever a test did to it."""


@dataclass
class NativeService:
    """One process, in a session of its own so that Ctrl-C ends the tests before it ends their servers."""

    name: str
    command: Sequence[str]
    folder: Path  # its data and its log; the working directory
    reaper: Reaper
    answers: Callable[[], bool]  # must return soon
    gently: signal.Signals = signal.SIGTERM
    user: str | None = None  # to run as, when we are root
    environment: Mapping[str, str] = field(default_factory=dict)
    start_limit_s: float = 100.0
    _process: "subprocess.Popen[bytes] | None" = None
    _paused: bool = False

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "output.log"

    @property
    def pid(self) -> int:
        """Its process id. Raises AssertionError: it is not running."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers. Raises ServiceUnavailable with the end of its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
                group=None if self.user is None else group_of(self.user),
                extra_groups=None if self.user is None else [],
            )
        self.reaper.watch(self._process.pid, self.gently)
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Shut it down in order; kill it when that takes longer than 20 seconds."""
        self._end(self.gently)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def heal(self) -> None:
        """Make it run and answer again."""
        if self._process is not None and self._process.poll() is not None:
            self._end(signal.SIGKILL)
        if self._process is None:
            self.start()
        elif self._paused:
            self.resume()
        self._wait_until_it_answers()

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, with_signal)
            os.kill(process.pid, signal.SIGCONT)
        self._paused = False
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.reaper.forget(process.pid)

    def _wait_until_it_answers(self) -> None:
        limit = time.monotonic() + self.start_limit_s
        while not self.answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > limit:
                raise ServiceUnavailable(f"{self.name} did not come up; the end of its log:\n{self._end_of_log()}")
            time.sleep(0.05)

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def group_of(user: str) -> int:
    """The primary group of a user of this machine."""
    return pwd.getpwnam(user).pw_gid


def data_folder(name: str, reaper: Reaper, owner: str | None = None) -> Path:
    """A new folder, removed at the end of the run.

    Another owner must be able to reach it, and the temporary folder of root may be private: /tmp then.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"switchyard-{name}-", dir="/tmp" if owner else None))
    reaper.remove(folder)
    if owner is not None:
        shutil.chown(folder, owner, group_of(owner))
    return folder


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, below those that outgoing connections are given."""
    while True:
        port = random.randint(20_000, 31_999)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run(command: Sequence[str], *, doing: str, cwd: Path | None = None, user: str | None = None) -> None:
    """Run a command to its end. Raises ServiceUnavailable with what it printed when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        user=user,
        group=None if user is None else group_of(user),
        extra_groups=None if user is None else [],
        check=False,
    )
    if done.returncode != 0:
        raise ServiceUnavailable(f"{doing} failed:\n{(done.stdout + done.stderr)[-4000:]}")
