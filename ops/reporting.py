"""A worker's reports of itself: for lag, scaling and whoever asks what it does."""

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bus.consumer import Condition
from contracts.errors import SupportError
from contracts.lag_ports import WorkerReport, WorkerReports

EVERY_S = 2.0
FRESH_S = 4 * EVERY_S
"""Past this a report is of a worker that is dead, frozen, or cut off from the database."""

_PACE_OVER_S = 30.0  # a model call takes seconds: over less, the pace would jump
_GOODBYE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pace:
    """How many a second, over the last half minute."""

    over_s: float = _PACE_OVER_S
    _counts: deque[tuple[float, int]] = field(default_factory=deque)  # when, how many by then

    def at(self, now_s: float, count: int) -> float:
        """The pace up to a moment at which so many were counted."""
        self._counts.append((now_s, count))
        while len(self._counts) > 2 and self._counts[1][0] <= now_s - self.over_s:
            self._counts.popleft()
        then_s, before = self._counts[0]
        return (count - before) / (now_s - then_s) if now_s > then_s else 0.0


@dataclass(slots=True)
class Reporting:
    """Reports again and again. An outage of the store is no matter: there will be a next report."""

    group: str
    condition: Callable[[], Condition]
    reports: WorkerReports
    every_s: float = EVERY_S
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    _pace: Pace = field(default_factory=Pace)

    async def run(self) -> None:
        """Report until cancelled, then withdraw."""
        try:
            while True:
                await self._report()
                await asyncio.sleep(self.every_s)
        finally:
            with contextlib.suppress(SupportError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self.reports.withdraw(self.worker)

    async def _report(self) -> None:
        now = self.condition()
        report = WorkerReport(
            worker=self.worker,
            group=self.group,
            host=socket.gethostname(),
            process_id=os.getpid(),
            lanes=now.lanes,
            running=now.running,
            in_hand=now.in_hand,
            settled_per_s=self._pace.at(time.monotonic(), now.settled),
            held_up=now.held_up,
            partitions=now.partitions,
        )
        try:
            await self.reports.report(report)
        except SupportError as error:
            _log.info("a worker could not report: %s", type(error).__name__)
