"""The ledger of an arm: the handler that every engine is given, which writes down what proves its work."""

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from benchmarks.job import Findings, Job
from benchmarks.machine import rss_bytes

_TICK_S = 0.002
_SAMPLE_EVERY_S = 0.5


class Handled(Protocol):
    """What the ledger reads of a record; each library's own record has these."""

    @property
    def key(self) -> bytes | None:
        """The ticket's id."""

    @property
    def partition(self) -> int:
        """Where it stands."""

    @property
    def offset(self) -> int:
        """Where it stands there."""


class Ledger:
    """Counts, times and proves. `handle` is the handler; `over` is set when the slice is.

    The order within a key is the order of its offsets, since a key keeps to its partition.
    """

    def __init__(self, job: Job) -> None:
        self.over = asyncio.Event()
        self.figures: dict[str, float] = {}
        self.handled = 0
        self.out_of_order = 0
        self.overlaps = 0
        self.commits = 0
        self.unsafe_commits = 0
        self.first_at = 0.0
        self.finished = [bytearray(end) for end in job.ends]
        self.handle: Callable[[Handled], Awaitable[None]] = self._wait if job.wait_s else self._no_op
        if "journal" in job.options:
            self._journal = os.open(str(job.options["journal"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self.handle = self._noted
        self._job = job
        self._slow_key = str(job.options.get("slow_key", "")).encode()
        self._last: dict[bytes | None, int] = {}
        self._running: set[bytes | None] = set()
        self._in_flight: dict[int, float] = {}  # when each handler in flight began
        self._checked = [0 for _ in job.ends]  # every record below is known to be finished
        self._window = (float("inf"), float("inf"))
        self._at_open = self._at_close = (0.0, 0, 0.0)  # clock, handled, processor time
        self._busy_s = self._useful_s = 0.0
        self._rss: list[tuple[float, int]] = []
        self._tasks: list[int] = []

    async def _no_op(self, record: Handled) -> None:
        key, offset = record.key, record.offset
        if self._last.get(key, -1) >= offset:
            self.out_of_order += 1
        self._last[key] = offset
        self.finished[record.partition][offset] = 1
        self.handled += 1

    async def _wait(self, record: Handled) -> None:
        began = time.perf_counter()
        key, offset = record.key, record.offset
        if key in self._running:
            self.overlaps += 1
        self._running.add(key)
        if self._last.get(key, -1) >= offset:
            self.out_of_order += 1
        self._last[key] = offset
        if key == self._slow_key:
            await self._wait_long()
        else:
            await asyncio.sleep(self._job.wait_s)
        self._running.discard(key)
        self.finished[record.partition][offset] = 1
        self.handled += 1
        self._spent(began, time.perf_counter())

    async def _wait_long(self) -> None:
        """The one slow ticket; it lets the slice end all the same."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), float(self._job.options["slow_s"]))

    async def _noted(self, record: Handled) -> None:
        """Handle, and write down when, where a killed process leaves it to others."""
        await self._wait(record)
        line = f"{record.partition} {record.offset} {time.monotonic()}\n"
        os.write(self._journal, line.encode())

    def _spent(self, began: float, ended: float) -> None:
        """Add the part of a handler's time that lies in the window."""
        opened, closed = self._window
        inside = min(ended, closed) - max(began, opened)
        if inside > 0:
            self._busy_s += inside
            self._useful_s += inside * self._job.wait_s / (ended - began)

    def committing(self, partition: int, offset: int) -> None:
        """Note a commit, when it is asked for: every record below the offset must be finished."""
        self.commits += 1
        if partition >= len(self.finished):
            return
        if self.finished[partition].find(0, self._checked[partition], offset) >= 0:
            self.unsafe_commits += 1
        else:
            self._checked[partition] = offset

    async def measure(self) -> None:
        """Open the window after the first records, close it in time or with the last record, then end the slice."""
        await self._first()
        self.first_at = time.monotonic()
        await self._pass(self.first_at + self._job.warmup_s)
        self._at_open = self._now()
        self._window = (self._at_open[0], float("inf"))
        await self._pass(time.monotonic() + self._job.window_s if self._job.window_s else float("inf"))
        self.close()
        await asyncio.sleep(self._job.wait_s * 1.2)  # what was in flight at the close still counts for its part
        self.over.set()

    def close(self) -> None:
        """Close the window now, unless it is."""
        if self._window[1] == float("inf"):
            self._at_close = self._now()
            self._window = (min(self._window[0], self._at_close[0]), self._at_close[0])

    async def _first(self) -> None:
        """Wait for the first record by looking now and then: to be told of it would cost every record a branch."""
        self._rss.append((0.0, rss_bytes()))
        while not self.handled:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)

    async def _pass(self, until: float) -> None:
        """Wait until a moment of the monotonic clock, or until every record is handled."""
        sample_at = 0.0
        while (now := time.monotonic()) < until and self.handled < (self._job.records or float("inf")):
            if now >= sample_at:
                sample_at = now + _SAMPLE_EVERY_S
                self._rss.append((now - self.first_at, rss_bytes()))
                self._tasks.append(len(asyncio.all_tasks()))
            await asyncio.sleep(_TICK_S)

    def _now(self) -> tuple[float, int, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), self.handled, used.ru_utime + used.ru_stime

    def findings(self) -> Findings:
        """What the slice came to."""
        self.close()
        opened, closed = self._at_open, self._at_close
        return Findings(
            window_s=closed[0] - opened[0],
            window_handled=closed[1] - opened[1],
            window_cpu_s=closed[2] - opened[2],
            busy_s=self._busy_s,
            useful_s=self._useful_s,
            handled=self.handled,
            distinct=sum(part.count(1) for part in self.finished),
            out_of_order=self.out_of_order,
            overlaps=self.overlaps,
            commits=self.commits,
            unsafe_commits=self.unsafe_commits,
            first_at=self.first_at,
            rss_bytes=tuple(self._rss),
            tasks=tuple(self._tasks),
            figures=self.figures,
        )
