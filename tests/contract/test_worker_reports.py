"""What is kept of workers' reports, whoever keeps it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from contracts.lag_ports import WorkerReport, WorkerReports
from state.worker_reports import MemoryWorkerReports, PostgresWorkerReports
from tests.contract.backends import migrated_pool

Kept = tuple[WorkerReports, Callable[[float], Awaitable[None]]]  # and what lets seconds go by

ADA = WorkerReport("ada", "triage", "host-1", 41, 256, 17, 80, 12.5, "", (0, 3))


class ReportsContract:
    async def test_the_last_report_of_each_worker_counts(self, kept: Kept) -> None:
        reports, _ = kept
        await reports.report(ADA)
        await reports.report(replace(ADA, running=0, held_up="the store does not keep up", partitions=()))
        await reports.report(replace(ADA, worker="bob"))
        await reports.report(replace(ADA, worker="eve", group="lookup"))
        told = await reports.of("triage", within_s=60)
        now = [replace(report, at=None) for report in told]
        assert now == [
            replace(ADA, running=0, held_up="the store does not keep up", partitions=()),
            replace(ADA, worker="bob"),
        ]
        assert all(report.at and abs((datetime.now(UTC) - report.at).total_seconds()) < 60 for report in told)

    async def test_a_worker_that_says_nothing_any_more_is_not_told_of(self, kept: Kept) -> None:
        reports, let_pass = kept
        await reports.report(ADA)
        await let_pass(30)
        assert [report.worker for report in await reports.of("triage", within_s=40)] == ["ada"]
        assert await reports.of("triage", within_s=20) == []

    async def test_a_worker_that_left_is_not_told_of(self, kept: Kept) -> None:
        reports, _ = kept
        await reports.report(ADA)
        await reports.withdraw("ada")
        await reports.withdraw("nobody")
        assert await reports.of("triage", within_s=60) == []


class TestMemoryWorkerReports(ReportsContract):
    @pytest.fixture
    def kept(self) -> Kept:
        now = 0.0

        async def let_pass(seconds: float) -> None:
            nonlocal now
            now += seconds

        return MemoryWorkerReports(lambda: now), let_pass


@pytest.mark.postgres
class TestPostgresWorkerReports(ReportsContract):
    @pytest.fixture
    async def kept(self, postgres_dsn: str) -> AsyncIterator[Kept]:
        async with migrated_pool(postgres_dsn) as pool:

            async def let_pass(seconds: float) -> None:
                await pool.execute(
                    "UPDATE worker_reports SET reported_at = reported_at - make_interval(secs => $1)", seconds
                )

            yield PostgresWorkerReports(pool), let_pass
