"""What workers say of themselves: the last report of each, for as long as it is fresh."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg

from contracts.lag_ports import WorkerReport
from state.pool import borrowed

_REPORT = """
INSERT INTO worker_reports (
    worker, group_name, host, process_id, lanes, running, in_hand, settled_per_s, held_up, partitions
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (worker) DO UPDATE
SET group_name = excluded.group_name, host = excluded.host, process_id = excluded.process_id, lanes = excluded.lanes,
    running = excluded.running, in_hand = excluded.in_hand, settled_per_s = excluded.settled_per_s,
    held_up = excluded.held_up, partitions = excluded.partitions, reported_at = clock_timestamp()
"""
# A worker that was killed leaves its last report behind: whoever reports next clears it away.
_CLEAR = "DELETE FROM worker_reports WHERE group_name = $1 AND reported_at < clock_timestamp() - interval '1 hour'"
_WITHDRAW = "DELETE FROM worker_reports WHERE worker = $1"
_OF = """
SELECT worker, group_name AS "group", host, process_id, lanes, running, in_hand, settled_per_s, held_up, partitions,
       reported_at AS at
FROM worker_reports
WHERE group_name = $1 AND reported_at >= clock_timestamp() - make_interval(secs => $2)
ORDER BY worker
"""


@dataclass(frozen=True, slots=True)
class PostgresWorkerReports:
    """WorkerReports on a migrated database."""

    pool: asyncpg.Pool

    async def report(self, report: WorkerReport) -> None:
        """Put it in place of what the worker said before."""
        async with borrowed(self.pool) as connection:
            await connection.execute(
                _REPORT,
                report.worker,
                report.group,
                report.host,
                report.process_id,
                report.lanes,
                report.running,
                report.in_hand,
                report.settled_per_s,
                report.held_up,
                list(report.partitions),
            )
            await connection.execute(_CLEAR, report.group)

    async def withdraw(self, worker: str) -> None:
        """Forget a worker that leaves."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_WITHDRAW, worker)

    async def of(self, group: str, *, within_s: float) -> Sequence[WorkerReport]:
        """What the group's workers said within so many seconds, by their names."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_OF, group, within_s)
        return [_report(row) for row in rows]


@dataclass(slots=True)
class MemoryWorkerReports:
    """WorkerReports in memory; `clock` counts seconds and stands for the database's."""

    clock: Callable[[], float] = time.monotonic
    _reports: dict[str, tuple[float, WorkerReport]] = field(default_factory=dict)

    async def report(self, report: WorkerReport) -> None:
        """Put it in place of what the worker said before."""
        self._reports[report.worker] = self.clock(), replace(report, at=datetime.now(UTC))

    async def withdraw(self, worker: str) -> None:
        """Forget a worker that leaves."""
        self._reports.pop(worker, None)

    async def of(self, group: str, *, within_s: float) -> Sequence[WorkerReport]:
        """What the group's workers said within so many seconds, by their names."""
        oldest = self.clock() - within_s
        fresh = (report for at, report in self._reports.values() if at >= oldest and report.group == group)
        return sorted(fresh, key=lambda report: report.worker)


def _report(row: asyncpg.Record) -> WorkerReport:
    told = dict(row)
    return WorkerReport(**told | {"partitions": tuple(told["partitions"])})
