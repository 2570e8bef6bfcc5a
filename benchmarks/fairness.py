"""B12: one tenant brings nine tenths of the load, in bursts: how long the others wait."""

import dataclasses
import heapq
import time
from typing import Any

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.cluster import PARTITIONS, Backlog
from benchmarks.crash import workplace
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.load import Due, Load, loading, steadily
from benchmarks.result import Result, arm, at_most, machine
from benchmarks.stats import percentile, ratio

ARMS = ("switchyard_step", "cte_keyed")
IN_FLIGHT = 50
_WAIT_S = 0.05  # 1,000 records a second are all that can be done
_SMALL_RATE, _BIG_BURST = 90.0, 810  # a second: nine tenths of it, all at once
TICKETS = 500
_START_WITHIN_S = 30.0


async def b12(bench: Bench, databases: Databases) -> Result:
    """Compare the small tenant's latency alone with that beside the big one; FIFO by key is the baseline."""
    load_s = bench.sized(10, 4)

    def one(name: str, beside: bool) -> Any:
        async def run() -> float:
            return await _p99_ms(bench, databases, name, load_s, beside)

        return run

    runs = {}
    for name in bench.chosen(ARMS):
        runs[f"{name}, alone"] = one(name, False)
        runs[f"{name}, beside 90 %"] = one(name, True)
    slices = await interleaved(runs, bench.slices, bench.told)
    arms = {name: arm([one.found for one in of_arm], "ms, p99 of the small tenant") for name, of_arm in slices.items()}
    compared = {
        f"{name}: beside 90 % / alone": ratio(arms[f"{name}, beside 90 %"].slices, arms[f"{name}, alone"].slices)
        for name in bench.chosen(ARMS)
    }
    ours = compared.get("switchyard_step: beside 90 % / alone")
    return Result(
        "B12",
        f"one tenant with 90 % of the load, in bursts of {_BIG_BURST} a second",
        arms,
        compared,
        [at_most("the small tenant's p99 <= 2 x alone", ours.median if ours else None, 2)],
        machine(slices),
    )


async def _p99_ms(bench: Bench, databases: Databases, name: str, load_s: float, beside: bool) -> float:
    source = await bench.cluster.topic("bench.b12")
    room = int((_SMALL_RATE + _BIG_BURST) * (load_s + 5))
    async with workplace(bench, databases, name, Backlog(source, (room,) * PARTITIONS)) as job:
        target = job.out_topic or await bench.cluster.topic("bench.b12.out")
        job = dataclasses.replace(job, concurrency=IN_FLIGHT, wait_s=_WAIT_S, window_s=0.0, out_topic=target)
        process = await driver.start(job)
        load = Load(bench.cluster.bootstrap, source, target)
        async with loading(load) as producer:
            await load.send(producer, Due(0, 0, "small"), time.monotonic())
            await load.until_seen(within_s=_START_WITHIN_S)
            since = time.monotonic()
            small = steadily(_SMALL_RATE, load_s, tickets=TICKETS, tenant="small")
            big = _bursts(load_s) if beside else []
            await load.run(producer, heapq.merge(small, big, key=lambda due: due.at_s))
            await load.until_seen(within_s=10.0)
        await process.stop()
        return percentile(load.latencies_ms(since=since, tenant="small"), 0.99)


def _bursts(load_s: float) -> list[Due]:
    return [
        Due(float(second), number % TICKETS, "big") for second in range(int(load_s)) for number in range(_BIG_BURST)
    ]
