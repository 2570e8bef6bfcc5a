"""A worker's reports of itself."""

import asyncio
from collections.abc import Sequence

import pytest

from bus.consumer import Condition
from contracts.errors import StoreUnavailable
from contracts.lag_ports import WorkerReport
from ops.reporting import Pace, Reporting
from state.worker_reports import MemoryWorkerReports

CONDITION = Condition(lanes=8, running=3, in_hand=5, settled=100, partitions=(1, 2), held_up="")


def test_the_pace_is_over_the_last_half_minute() -> None:
    pace = Pace(over_s=30)
    assert pace.at(0, 1000) == 0  # one count is no pace
    assert pace.at(10, 1100) == 10
    assert pace.at(30, 1100) == pytest.approx(100 / 30)
    assert pace.at(60, 1160) == 2  # since the count at 30
    assert pace.at(100, 1160) == 0


class Failing:
    """Reports that fail at first."""

    def __init__(self, reports: MemoryWorkerReports, failures: int) -> None:
        self._reports = reports
        self._failures = failures

    async def report(self, report: WorkerReport) -> None:
        if self._failures:
            self._failures -= 1
            raise StoreUnavailable("away")
        await self._reports.report(report)

    async def withdraw(self, worker: str) -> None:
        await self._reports.withdraw(worker)

    async def of(self, group: str, *, within_s: float) -> Sequence[WorkerReport]:
        return await self._reports.of(group, within_s=within_s)


async def test_a_worker_reports_through_an_outage_and_withdraws_at_its_end() -> None:
    reports = Failing(MemoryWorkerReports(), failures=2)
    reporting = asyncio.create_task(Reporting("triage", lambda: CONDITION, reports, every_s=0.001).run())
    async with asyncio.timeout(10):
        while not (found := await reports.of("triage", within_s=60)):
            await asyncio.sleep(0)
    [report] = found
    assert (report.lanes, report.running, report.in_hand, report.partitions) == (8, 3, 5, (1, 2))
    reporting.cancel()
    await asyncio.wait([reporting])
    assert reporting.cancelled()
    assert await reports.of("triage", within_s=60) == []
