"""A worker that is killed at load, and the one that comes after it."""

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.cluster import PARTITIONS, Backlog
from benchmarks.database import Databases
from benchmarks.job import Job
from benchmarks.journal import Entry, entries, repeated, until_longer
from benchmarks.patience import until
from contracts.topics import LOOKUP, dead_letter_topic

SESSION_TIMEOUT_S = 6.0  # the shortest that Kafka's defaults allow
_RUN_S = 3.0  # before the kill, from the first record on
_THEN_S = 3.0  # after the first record that is new
_START_WITHIN_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Crash:
    """What a kill did."""

    first_new_s: float  # from the kill to the first record handled that had not been
    lost: int  # records below what the group has committed at the end that nobody handled to the end
    again: int  # records handled to the end more than once
    again_stored: int  # of these, those whose step was stored before the kill
    handled: int


async def crash(
    bench: Bench,
    databases: Databases,
    arm: str,
    *,
    tickets: int,
    concurrency: int,
    wait_s: float,
    options: dict[str, float | str] | None = None,
) -> Crash:
    """Kill a worker at load with SIGKILL and start another at once; the second one ends in order."""
    seconds = _RUN_S + _THEN_S + 4
    records = int(min(concurrency / wait_s, 20_000) * seconds)
    backlog = await bench.cluster.backlog("bench.crash", tickets=tickets, records=records, events=True)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        async with workplace(bench, databases, arm, backlog) as job:
            job = dataclasses.replace(job, concurrency=concurrency, wait_s=wait_s, window_s=0.0)
            before, after = Path(folder, "before"), Path(folder, "after")
            killed_at = await _run_and_kill(journalled(job, before, options), before)
            stored = await _stored(job)
            first_new_s = await _take_over(journalled(job, after), before, after, killed_at)
            committed = await bench.cluster.committed(job.group, job.topic)
            return _judge(entries(before), entries(after), stored, committed, first_new_s)


@asynccontextmanager
async def workplace(bench: Bench, databases: Databases, arm: str, backlog: Backlog) -> AsyncIterator[Job]:
    """A job for several processes of one group: a database of its own, and what else the arm needs."""
    async with databases.fresh() as dsn:
        is_ours = arm == "switchyard_step"
        target = LOOKUP.name if is_ours else ""
        job = bench.job(arm, backlog, dsn=dsn, out_topic=target, session_timeout_s=SESSION_TIMEOUT_S)
        if is_ours:
            await bench.cluster.exact_topic(dead_letter_topic(job.topic, job.group), PARTITIONS)
        yield job


def journalled(job: Job, path: Path, options: dict[str, float | str] | None = None) -> Job:
    """The same job, written down."""
    return dataclasses.replace(job, options={**(options or {}), "journal": str(path)})


async def _run_and_kill(job: Job, journal: Path) -> float:
    process = await driver.start(job)
    try:
        await until_longer(journal, 0, within_s=_START_WITHIN_S)
        await asyncio.sleep(_RUN_S)
        return time.monotonic()
    finally:
        await process.kill()


async def _take_over(job: Job, before: Path, after: Path, killed_at: float) -> float:
    """Run the second worker; seconds from the kill to the first record it handled that is new."""
    known = {entry.place for entry in entries(before)}
    process = await driver.start(job)
    await until(lambda: _first_new(entries(after), known) is not None, within_s=_START_WITHIN_S)
    await asyncio.sleep(_THEN_S)
    await process.stop()
    return (_first_new(entries(after), known) or 0.0) - killed_at


def _first_new(handled: list[Entry], known: Set[tuple[int, int]]) -> float | None:
    return next((entry.at for entry in handled if entry.place not in known), None)


async def _stored(job: Job) -> set[tuple[int, int]]:
    """The records whose steps our store holds."""
    connection = await asyncpg.connect(job.dsn)
    try:
        rows = await connection.fetch("SELECT partition, kafka_offset FROM inbox WHERE group_name = $1", job.group)
    finally:
        await connection.close()
    return {(row["partition"], row["kafka_offset"]) for row in rows}


def _judge(
    before: list[Entry],
    after: list[Entry],
    stored: Set[tuple[int, int]],
    committed: Mapping[int, int],
    first_new_s: float,
) -> Crash:
    handled = {entry.place for entry in (*before, *after)}
    lost = sum((partition, offset) not in handled for partition, end in committed.items() for offset in range(end))
    return Crash(
        first_new_s=first_new_s,
        lost=lost,
        again=repeated([*before, *after]),
        again_stored=sum(entry.place in stored for entry in after),
        handled=len(handled),
    )
