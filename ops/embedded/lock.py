"""The lock of a data directory: one live stack each."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import Misconfigured


@contextlib.contextmanager
def owning(data_dir: Path) -> Iterator[None]:
    """Hold a data directory. The kernel lets go when the owner dies, so there is no stale lock.

    Raises Misconfigured: another stack holds it.
    """
    path = data_dir / "stack.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 20, 0).decode().strip() or "just starting"
        raise Misconfigured(
            f"a stack is already up on {data_dir} (process {owner}): stop it, or choose another --data-dir"
        ) from error
