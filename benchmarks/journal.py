"""What arms wrote down of each record they handled, read back when their processes are gone."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.patience import until


class Entry(NamedTuple):
    """One record, handled to its end."""

    partition: int
    offset: int
    at: float  # on the machine's monotonic clock

    @property
    def place(self) -> tuple[int, int]:
        """Which record."""
        return self.partition, self.offset


def entries(path: Path) -> list[Entry]:
    """What a journal holds, oldest first; a line cut short by a kill is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    split = (line.split() for line in whole.splitlines())
    return [Entry(int(partition), int(offset), float(at)) for partition, offset, at in split]


def repeated(handled: Iterable[Entry]) -> int:
    """How often a record was handled beyond its first time."""
    return sum(times - 1 for times in Counter(entry.place for entry in handled).values())


async def until_longer(path: Path, lines: int, *, within_s: float) -> None:
    """Wait until a journal has more lines than that. Raises TimeoutError."""
    await until(lambda: len(entries(path)) > lines, within_s=within_s)
