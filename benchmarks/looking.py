"""`lag`: what a look at a group's lag costs: the first one at a backlog, and each one at which nothing is new."""

import contextlib
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.bench import Bench, new_group
from benchmarks.cluster import Backlog
from benchmarks.database import Databases, execute
from benchmarks.driver import Slice, interleaved
from benchmarks.result import Arm, Result, arm, at_most, cpu_of, machine, ratios
from bus.codec import Codec
from bus.connection import KafkaConnection
from bus.lag import LagReader, lag_reader
from contracts.events import TicketSubmitted
from contracts.topics import Topic, dead_letter_topic
from state.pool import open_pool
from state.progress import PostgresProgress

ARMS = ("raw", "open", "settled", "nothing new")
_SETTLED = """
INSERT INTO inbox (group_name, event_id, type, ticket_id, topic, partition, kafka_offset, version)
SELECT '{group}', partition || ':' || place, 'TicketSubmitted', 't', '{topic}', partition, place, 1
FROM unnest(ARRAY[{ends}]) WITH ORDINALITY AS ends (amount, nth), LATERAL (SELECT (nth - 1)::int AS partition) AS of_it,
     generate_series(0, amount - 1) AS place;
ANALYZE inbox
"""


@dataclass(frozen=True, slots=True)
class Looked:
    """One slice: how long it took, and what of that was our own processor time."""

    seconds: float
    cpu_s: float
    open: int  # records that were told as not finished


async def lag(bench: Bench, databases: Databases) -> Result:
    """Look at a backlog nobody began, at one that is settled above the commit, and again with nothing new."""
    records = bench.sized(100_000, 20_000)
    backlog = await bench.cluster.backlog("bench.lag", tickets=10_000, records=records, events=True)
    slices = await interleaved(
        {name: _slice(bench, databases, name, backlog) for name in bench.chosen(ARMS)}, bench.slices, bench.told
    )
    arms = {name: _arm(name, of_arm, records) for name, of_arm in slices.items()}
    wrong = [one.found.open != {"open": records}.get(name, 0) for name, of_arm in slices.items() for one in of_arm]
    return Result(
        "lag",
        f"a look at {records:,} records in eight partitions",
        arms,
        ratios(arms, [(name, "raw") for name in ("open", "settled")]),
        [
            at_most("the first look: <= 50 µs CPU a record", cpu_of(arms.get("settled")), 50),
            at_most("nothing new: <= 25,000 µs CPU a look", cpu_of(arms.get("nothing new")), 25_000),
            at_most("no look told another number than there was", float(sum(wrong)), 0),
        ],
        machine(slices),
    )


def _arm(name: str, slices: list[Slice[Looked]], records: int) -> Arm:
    if name == "nothing new":
        return arm(
            [one.found.seconds * 1e3 for one in slices], "ms a look", cpu_us=[one.found.cpu_s * 1e6 for one in slices]
        )
    rates = [records / one.found.seconds for one in slices]
    return arm(rates, "records/s", cpu_us=[one.found.cpu_s / records * 1e6 for one in slices])


def _slice(bench: Bench, databases: Databases, name: str, backlog: Backlog) -> Callable[[], Awaitable[Looked]]:
    async def run() -> Looked:
        if name == "raw":
            return await _timed(lambda: _read(bench.cluster.bootstrap, backlog))
        async with _reader(bench, databases, backlog, settled=name != "open") as reader:
            if name == "nothing new":
                await reader.look()
            return await _timed(lambda: _look(reader))

    return run


async def _timed(work: Callable[[], Awaitable[int]]) -> Looked:
    began, cpu = time.perf_counter(), _cpu_s()
    unfinished = await work()
    return Looked(time.perf_counter() - began, _cpu_s() - cpu, unfinished)


async def _look(reader: LagReader) -> int:
    return sum(row.unfinished for row in (await reader.look()).partitions)


async def _read(bootstrap: str, backlog: Backlog) -> int:
    """Read every record and keep none: what any look at them must at least do. Returns how many are left."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=4 * 1024 * 1024)
    await consumer.start()
    left = sum(backlog.ends)
    try:
        partitions = [TopicPartition(backlog.topic, number) for number in range(len(backlog.ends))]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        while left:
            left -= sum(map(len, (await consumer.getmany(timeout_ms=100, max_records=2_000)).values()))
    finally:
        await consumer.stop()
    return left


@contextlib.asynccontextmanager
async def _reader(bench: Bench, databases: Databases, backlog: Backlog, *, settled: bool) -> AsyncIterator[LagReader]:
    """Looks at a new group, which committed nothing, in a database of its own."""
    group, topic = new_group("lag"), Topic(backlog.topic, (TicketSubmitted,), partitions=len(backlog.ends))
    await bench.cluster.exact_topic(dead_letter_topic(topic.name, group), len(backlog.ends))
    async with databases.fresh() as dsn, open_pool(dsn) as pool:
        if settled:
            ends = ", ".join(map(str, backlog.ends))
            await execute(dsn, _SETTLED.format(group=group, topic=topic.name, ends=ends))
        store, codec = PostgresProgress(pool), Codec(timedelta(hours=1))
        async with lag_reader(KafkaConnection(bench.cluster.bootstrap), group, topic, store, codec) as reader:
            yield reader


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
