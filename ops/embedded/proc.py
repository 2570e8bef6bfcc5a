"""What /proc tells: which processes belong to a stack, and the memory they take. But on Linux: nothing."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from contracts.errors import SupportError

PROC = Path("/proc")
MARKER = "SWITCHYARD_STACK_DIR"
"""The environment variable by which a child, and whoever it starts, is known as a part of a stack."""


class StillRunning(SupportError):
    """Processes outlive even SIGKILL: stuck in the kernel, or somebody else's."""


def members(stack_dir: Path) -> list[int]:
    """Every live process that carries the marker of the stack kept in this directory."""
    mark = f"{MARKER}={stack_dir}".encode()
    return [pid for pid in _pids() if mark in _read(pid, "environ").split(b"\0")]


def working_in(directory: Path) -> list[int]:
    """Every live process whose working directory this is: PostgreSQL's processes hide their environment."""
    return [pid for pid in _pids() if _working_directory(pid) == str(directory)]


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children = defaultdict(list)
    for pid in _pids():
        children[_parent(pid)].append(pid)
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def memory_bytes(pid: int) -> int:
    """The memory a process takes, shared pages divided among those that share them; 0 when it is gone."""
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    fields = _read(pid, "statm").split()  # no smaps_rollup: shared pages count fully
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


async def end(pids: Collection[int], *, within_s: float = 10.0) -> None:
    """Kill processes and wait until they are gone. Raises StillRunning."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    limit = asyncio.get_running_loop().time() + within_s
    while alive := [pid for pid in pids if _is_alive(pid)]:
        if asyncio.get_running_loop().time() > limit:
            raise StillRunning(f"processes {', '.join(map(str, alive))} cannot be ended")
        await asyncio.sleep(0.01)


def _pids() -> Iterator[int]:
    if PROC.is_dir():
        yield from (int(entry) for entry in os.listdir(PROC) if entry.isdigit() and int(entry) != os.getpid())


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # gone since it was listed, or another user's
        return b""


def _working_directory(pid: int) -> str | None:
    try:
        return os.readlink(PROC / str(pid) / "cwd")
    except OSError:
        return None


def _stat(pid: int) -> list[bytes]:
    """The fields after the name, which may itself hold spaces and brackets: state, parent, …"""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _is_alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")
