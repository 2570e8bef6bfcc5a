"""B11: handlers that fail: what is left of the throughput, how late retries come, and whether the order holds."""

import asyncio
import dataclasses
import time
from typing import Any

from benchmarks import driver
from benchmarks.arms.failing import POISON_OF_1000, poisoned
from benchmarks.bench import Bench
from benchmarks.cluster import PARTITIONS, Backlog
from benchmarks.crash import workplace
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.job import Findings
from benchmarks.load import Due, Load, loading, steadily
from benchmarks.result import Result, arm, at_least, at_most, machine, ratios

ARM = "switchyard_step"
RATE = 1_000.0
TICKETS = 20_000
_WITHOUT, _WITH = "without failures", "with failures"
_GRACE_S = 1.0  # for what was sent last


@dataclasses.dataclass(frozen=True, slots=True)
class Flow:
    """One slice: the share of what could be answered by the end of the load that was, and what the arm found."""

    goodput: float
    found: Findings


async def b11(bench: Bench, databases: Databases) -> Result:
    """Ten of a hundred records fail once and are tried again in 1, 5 or 30 s; one of a hundred always fails.

    A record that stands behind a dead letter of its ticket cannot be answered, and is not counted.
    """
    load_s = bench.sized(60, 6)
    scale = 1.0 if not bench.quick else 0.1  # of the waits

    def one(failing: bool) -> Any:
        async def run() -> Flow:
            return await _flow(bench, databases, load_s, {"failing": scale} if failing else {})

        return run

    slices = await interleaved({_WITHOUT: one(False), _WITH: one(True)}, 1 if bench.quick else 3, bench.told)
    arms = {}
    for name, of_arm in slices.items():
        found = [one.found.found for one in of_arm]
        notes = {
            "out of order": sum(one.out_of_order for one in found),
            **{what: max(one.figures[what] for one in found) for what in found[0].figures},
        }
        arms[name] = arm([one.found.goodput for one in of_arm], "goodput", notes=notes)
    compared = ratios(arms, [(_WITH, _WITHOUT)])
    failing = arms[_WITH].notes
    return Result(
        "B11",
        f"10 % fail once, {POISON_OF_1000 / 10:.0f} % are poison, waits 1/5/30 s, {RATE:,.0f} records/s",
        arms,
        compared,
        [
            at_least("goodput >= .95 of that without failures", compared[f"{_WITH} / {_WITHOUT}"].median, 0.95),
            at_most("p99 lateness <= 250 ms", failing["lateness p99 ms"], 250),
            at_most("none early", failing["early"], 0),
            at_most("order violations 0", failing["out of order"], 0),
        ],
        machine(slices),
    )


async def _flow(bench: Bench, databases: Databases, load_s: float, options: dict[str, float | str]) -> Flow:
    source = await bench.cluster.topic("bench.b11")
    room = int(RATE * (load_s + 5))
    async with workplace(bench, databases, ARM, Backlog(source, (room,) * PARTITIONS)) as job:
        job = dataclasses.replace(job, concurrency=500, wait_s=0.01, window_s=0.0, options=options)
        process = await driver.start(job)
        load = Load(bench.cluster.bootstrap, source, job.out_topic)
        async with loading(load) as producer:
            while not load.seen:  # its first records may fail
                await load.send(producer, Due(0, TICKETS + len(load.intended)), time.monotonic())
                await asyncio.sleep(0.2)
            since = time.monotonic()
            await load.run(producer, steadily(RATE, load_s, tickets=TICKETS))
            await asyncio.sleep(_GRACE_S)
            answered = sum(load.intended[event_id] >= since for event_id in load.seen)
        return Flow(answered / _answerable(load, since, bool(options)), await process.stop())


def _answerable(load: Load, since: float, failing: bool) -> int:
    """How many records of the load are no poison and stand behind none of their ticket's."""
    stuck: set[str] = set()
    count = 0
    for event_id, intended in load.intended.items():
        if intended < since:
            continue
        if failing and poisoned(event_id):
            stuck.add(load.ticket_of[event_id])
        count += load.ticket_of[event_id] not in stuck
    return count
