"""The reaper: a process that ends the servers and removes the folders that a killed pytest leaves behind.

It reads orders from its standard input, whose other end only pytest holds. When that closes, for whatever
reason, what is still watched is ended: first with the server's own gentle signal, then with SIGKILL.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0


class Reaper:
    """Pytest's side: whom to end and what to remove if pytest does not live to do it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def watch(self, pid: int, gently: signal.Signals = signal.SIGTERM) -> None:
        """End this process (and the group it leads) at the end, gently first."""
        self._order(f"watch {pid} {gently.value}")

    def forget(self, pid: int) -> None:
        """This process has ended; its number may be somebody else's soon."""
        self._order(f"forget {pid}")

    def remove(self, folder: Path) -> None:
        """Remove this folder at the end."""
        self._order(f"remove {folder}")

    def close(self) -> None:
        """End what is still watched, now."""
        self._process.communicate(timeout=GRACE_S + 30)

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


def reap(watched: Mapping[int, int]) -> None:
    """End processes, given as pid to gentle signal, and wait until they are gone."""
    for pid, gently in watched.items():
        _send(pid, gently)
        _send(pid, signal.SIGCONT)
    limit = time.monotonic() + GRACE_S
    while any(_send(pid, 0) for pid in watched) and time.monotonic() < limit:
        time.sleep(0.05)
    for pid in watched:
        _send(pid, signal.SIGKILL, whole_group=True)


def _send(pid: int, signal_number: int, *, whole_group: bool = False) -> bool:
    with suppress(ProcessLookupError):
        (os.killpg if whole_group else os.kill)(pid, signal_number)
        return True
    return False


def main() -> None:
    """Follow orders until there are no more, then carry out what is left of them."""
    for interrupt in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(interrupt, signal.SIG_IGN)
    watched: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        match line.rstrip("\n").split(" ", 1):
            case ["watch", rest]:
                pid, gently = rest.split()
                watched[int(pid)] = int(gently)
            case ["forget", pid]:
                watched.pop(int(pid), None)
            case ["remove", folder]:
                folders.append(folder)
    reap(watched)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
