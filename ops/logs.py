"""Log files of child processes."""

import os
from pathlib import Path
from typing import BinaryIO

LIMIT_BYTES = 10 * 1024 * 1024
_TAIL_LINES = 8
_TAIL_BYTES = 4096


def open_log(path: Path) -> BinaryIO:
    """Open a log for what comes next; one that is full is put aside, as `NAME.log.1`."""
    if path.exists() and path.stat().st_size > LIMIT_BYTES:
        os.replace(path, path.with_suffix(".log.1"))
    return path.open("ab")


def last_words(path: Path) -> str:
    """How a log ends, for people."""
    lines = tail(path)
    return f"{path} ends with:\n" + "\n".join(lines) if lines else f"{path} is empty"


def tail(path: Path) -> list[str]:
    """The last lines of a log."""
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _TAIL_BYTES))
        return log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
