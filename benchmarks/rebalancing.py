"""B9: a member joins or leaves every 10 s: what is left of the throughput, and what is handled twice."""

import asyncio
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.crash import journalled, workplace
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.job import Job
from benchmarks.journal import Entry, entries, repeated, until_longer
from benchmarks.result import Result, arm, at_least, at_most, machine, value_of

ARMS = ("switchyard_step", "naive_keyed", "faststream_workers")
IN_FLIGHT = 100
_WAIT_S = 0.1  # 1,000 records a second and member: far from what two processors can do with a database beside
_START_WITHIN_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Storm:
    """What one slice came to."""

    goodput: float  # of what the members could have done while they were up
    repeated: int
    handled: int


async def b9(bench: Bench, databases: Databases) -> Result:
    """One member stays; another joins, leaves, joins and leaves.

    What the members could have done: in flight over the handlers' wait, for each member from the moment it was asked
    to start (for the first one: handled its first record) to the moment it was asked to stop.
    """
    every_s, changes = (10.0, 4) if not bench.quick else (4.0, 2)

    def one(name: str) -> Any:
        async def run() -> Storm:
            return await _storm(bench, databases, name, every_s, changes)

        return run

    slices = await interleaved({name: one(name) for name in bench.chosen(ARMS)}, 1 if bench.quick else 3, bench.told)
    arms = {
        name: arm(
            [one.found.goodput for one in of_arm],
            "goodput",
            notes={
                "handled again": sum(one.found.repeated for one in of_arm),
                "of": sum(one.found.handled for one in of_arm),
            },
        )
        for name, of_arm in slices.items()
    }
    ours = arms.get("switchyard_step")
    return Result(
        "B9",
        f"a member joins or leaves every {every_s:.0f} s",
        arms,
        {},
        [
            at_least("goodput >= .85", value_of(ours), 0.85),
            at_most("handled again 0", float(ours.notes["handled again"]) if ours else None, 0),
        ],
        machine(slices),
    )


async def _storm(bench: Bench, databases: Databases, name: str, every_s: float, changes: int) -> Storm:
    rate = IN_FLIGHT / _WAIT_S
    records = int(2 * rate * (every_s * (changes + 1) + 8))
    backlog = await bench.cluster.backlog("bench.b9", tickets=5_000, records=records, events=True)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        async with workplace(bench, databases, name, backlog) as job:
            job = dataclasses.replace(job, concurrency=IN_FLIGHT, wait_s=_WAIT_S, window_s=0.0)
            journals = [Path(folder, str(number)) for number in range(1 + (changes + 1) // 2)]
            began, ended, extra_s = await _come_and_go(job, journals, every_s, changes)
            handled = [entry for journal in journals for entry in entries(journal)]
            done = _between(handled, began, ended)
            return Storm(done / (rate * (ended - began + extra_s)), repeated(handled), len(handled))


async def _come_and_go(job: Job, journals: list[Path], every_s: float, changes: int) -> tuple[float, float, float]:
    """Returns when the first member had begun, when all was over, and the seconds that others were up."""
    staying = await driver.start(journalled(job, journals[0]))
    await until_longer(journals[0], 0, within_s=_START_WITHIN_S)
    await asyncio.sleep(1.0)
    began, extra_s = time.monotonic(), 0.0
    other: driver.Process | None = None
    for number in range(changes):
        if other is None:
            other = await driver.start(journalled(job, journals[1 + number // 2]))
            await asyncio.sleep(every_s)
            extra_s += every_s
        else:
            leaving, other = asyncio.create_task(other.stop()), None
            await asyncio.sleep(every_s)
            await leaving
    ended = time.monotonic()
    for member in (staying, other):
        if member is not None:
            await member.stop()
    return began, ended, extra_s


def _between(handled: list[Entry], began: float, ended: float) -> int:
    return sum(began <= entry.at <= ended for entry in handled)
