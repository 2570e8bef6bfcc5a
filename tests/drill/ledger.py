"""Ledgers: files outside the system, one JSON object a line, written before what they tell of goes on."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def true_time() -> float:
    """Seconds since 1970 by the machine's clock, whatever this process was told to believe."""
    return time.clock_gettime(time.CLOCK_REALTIME)


class Ledger:
    """One process's own file; a line is with the kernel when `note` returns, so SIGKILL loses none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, **detail: Any) -> None:
        """Append a line."""
        line = json.dumps({"what": what, "at": true_time(), "pid": os.getpid(), **detail})
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def read_ledgers(folder: Path, pattern: str = "*.ledger") -> list[dict[str, Any]]:
    """Every line of a folder's ledgers, by time."""
    return sorted((line for path in folder.glob(pattern) for line in _lines(path)), key=lambda line: line["at"])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines():
        yield json.loads(line)
