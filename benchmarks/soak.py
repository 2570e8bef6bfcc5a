"""The soak: two hours of a busy desk, as fast as they go, with housekeeping; what should stay flat is watched."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.cluster import PARTITIONS
from benchmarks.database import Databases, execute
from benchmarks.result import Arm, Result, arm, at_most, machine
from contracts.topics import LOOKUP, dead_letter_topic
from state.housekeeping import PostgresHousekeeping, Retention
from state.pool import open_pool

RECORDS = 720_000  # two hours of 100 a second
TICKETS = 10_000
KEPT_S = 15  # rows of the last so many seconds stay: some tens of thousands
_TABLES = ("inbox", "outbox", "emitted", "journal", "tickets", "leases")
_EVERY_S = 1.0
_LIMIT_S = 1800.0
_KEEP = Retention(
    inbox=timedelta(days=60), emitted=timedelta(days=60), journal=timedelta(days=60), leases=timedelta(days=60)
)

# Housekeeping asks the database for the time. Its own connections are told a later one, by a function that stands
# before the real one in their search path.
_LATER = f"""
CREATE SCHEMA later;
CREATE FUNCTION later.clock_timestamp() RETURNS timestamptz LANGUAGE sql
RETURN pg_catalog.clock_timestamp() + interval '60 days' - interval '{KEPT_S} seconds';
"""
_SAMPLE = f"""
SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections,
       {", ".join(f"pg_total_relation_size('{table}') AS {table}" for table in _TABLES)}
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the database held at one moment: bytes by table, and sessions."""

    connections: int
    tables: dict[str, int]


async def soak(bench: Bench, databases: Databases) -> Result:
    """Work through a backlog while housekeeping deletes what is older than some seconds; compare first and last."""
    records = bench.sized(RECORDS, 60_000)
    backlog = await bench.cluster.backlog("bench.soak", tickets=TICKETS, records=records, events=True)
    job = bench.job("switchyard_step", backlog, out_topic=LOOKUP.name, concurrency=100, warmup_s=0, window_s=_LIMIT_S)
    await bench.cluster.exact_topic(dead_letter_topic(job.topic, job.group), PARTITIONS)
    async with databases.fresh() as dsn, _vacuumed_often(dsn):
        on_it = dataclasses.replace(job, dsn=dsn)
        await execute(dsn, _LATER)
        async with _watching(dsn) as samples:
            slices = await driver.interleaved({"soak": lambda: driver.run(on_it)}, 1, bench.told)
    found = slices["soak"][0].found
    memory = [size for _, size in found.rss_bytes]
    flat = {
        "memory": _flat(memory),
        "tasks": _flat(found.tasks),
        "sessions": _flat([sample.connections for sample in samples]),
        **{f"table {name}": _flat([sample.tables[name] for sample in samples]) for name in _TABLES},
    }
    return Result(
        "soak",
        f"{records:,} records of {TICKETS:,} tickets, rows kept for {KEPT_S} s",
        {"records": arm([found.rate], "records/s"), **flat},
        {},
        [
            at_most("not handled", records - found.distinct, 0),
            *(at_most(f"{what}: last quarter over second <= 1.1", one.median, 1.1) for what, one in flat.items()),
        ],
        machine(slices),
    )


def _flat(values: Sequence[float]) -> Arm:
    """The mean of the last quarter over that of the second one; the first is the warm-up."""
    quarter = len(values) // 4
    second, last = values[quarter : 2 * quarter], values[-quarter:]
    ratio = sum(last) / max(1, sum(second))
    return arm([ratio], "last quarter / second", notes={"from": second[0], "to": last[-1], "most": max(values)})


@contextlib.asynccontextmanager
async def _vacuumed_often(dsn: str) -> AsyncIterator[None]:
    """Time is short here, and autovacuum looks once a minute."""
    await execute(dsn, "ALTER SYSTEM SET autovacuum_naptime = 1")
    await execute(dsn, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await execute(dsn, "ALTER SYSTEM RESET autovacuum_naptime")
        await execute(dsn, "SELECT pg_reload_conf()")


@contextlib.asynccontextmanager
async def _watching(dsn: str) -> AsyncIterator[list[Sample]]:
    """Keep house and take samples meanwhile."""
    samples: list[Sample] = []
    own = f"{dsn}{'&' if '?' in dsn else '?'}search_path=later,public,pg_catalog"
    async with open_pool(own, max_size=1) as pool:
        watching = asyncio.create_task(_watch(pool, samples))
        try:
            yield samples
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _watch(pool: asyncpg.Pool, samples: list[Sample]) -> None:
    housekeeping = PostgresHousekeeping(pool)
    while True:
        row: Any = await pool.fetchrow(_SAMPLE)
        samples.append(Sample(row["connections"], {table: row[table] for table in _TABLES}))
        await housekeeping.prune(_KEEP)
        await asyncio.sleep(_EVERY_S)
