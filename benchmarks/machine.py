"""The machine under the figures: how fast it is just now, and what the neighbours took of it."""

import os
import time
from pathlib import Path

_LOOPS = 400_000


def calibrate() -> float:
    """Seconds that a fixed piece of plain Python takes now: the speed of the machine in this slice."""
    began = time.perf_counter()
    total = 0
    for number in range(_LOOPS):
        total += number & 7
    return time.perf_counter() - began


class Steal:
    """What share of the processors' time went to other guests of the host since this was made; 0 where unknown."""

    def __init__(self) -> None:
        self._before = _cpu_times()

    def share(self) -> float:
        """0..1, of all processors."""
        spent: list[int] = [after - before for before, after in zip(self._before, _cpu_times(), strict=True)]
        total = sum(spent)
        return spent[7] / total if len(spent) > 7 and total else 0.0


def _cpu_times() -> list[int]:
    stat = Path("/proc/stat")
    return [int(part) for part in stat.read_text().split("\n", 1)[0].split()[1:9]] if stat.exists() else []


def rss_bytes() -> int:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
