"""B6: what a hop costs: from the moment a record was meant to be sent to the moment its answer is seen."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.cluster import PARTITIONS, Backlog
from benchmarks.database import Databases
from benchmarks.driver import Slice, interleaved
from benchmarks.load import Due, Load, loading, steadily
from benchmarks.result import Arm, Result, arm, at_most, machine, ratios, value_of
from benchmarks.stats import percentile
from benchmarks.steps import step_slices
from contracts.topics import LOOKUP, dead_letter_topic

ARMS = ("no_hop", "hop_bare", "faststream_ack", "faust_agent", "cte_keyed", "switchyard_step")
STEPS = ("cte_keyed", "switchyard_step")  # measured at half of their own throughput too
RATE = 200.0
TICKETS = 1_000
IN_FLIGHT = 1_000
_JOIN_WITHIN_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Hops:
    """One slice: latencies in milliseconds, and the processor time of the arm."""

    p50: float
    p99: float
    cpu_us: float
    unseen: int


async def b6(bench: Bench, databases: Databases) -> Result:
    """Send records at a steady rate and see their answers; then at half of what each whole step can do."""
    window_s = bench.sized(8, 3)
    arms: dict[str, Arm] = {}
    slices = await interleaved(
        {name: _slice(bench, databases, name, RATE, window_s) for name in bench.chosen(ARMS)}, bench.slices, bench.told
    )
    arms |= _as_arms(slices, "200/s")
    state = machine(slices)
    for name in bench.chosen(STEPS):
        rate = await _half_of_its_best(bench, databases, name)
        slices = await interleaved({name: _slice(bench, databases, name, rate, window_s)}, bench.slices, bench.told)
        arms |= _as_arms(slices, "half load", {"rate": rate})
    p50, p99 = arms.get("switchyard_step p50 at 200/s"), arms.get("switchyard_step p99 at 200/s")
    half = arms.get("switchyard_step p99 at half load")
    ours = "switchyard_step p50 at 200/s"
    return Result(
        "B6",
        "produce, handle, produce, seen",
        arms,
        ratios(arms, [(ours, f"{other} p50 at 200/s") for other in ARMS if other != "switchyard_step"]),
        [
            at_most("p50 <= 4 ms at 200/s", value_of(p50), 4),
            at_most("p99 <= 10 ms at 200/s", value_of(p99), 10),
            at_most("p99 <= 30 ms at half of B4's rate", value_of(half), 30),
            at_most("nothing unseen", float(p50.notes["unseen"]) if p50 else None, 0),
        ],
        state,
    )


def _slice(bench: Bench, databases: Databases, name: str, rate: float, window_s: float) -> Any:
    async def run() -> Hops:
        source = await bench.cluster.topic("bench.b6.in")
        target = LOOKUP.name if name == "switchyard_step" else await bench.cluster.topic("bench.b6.out")
        if name == "no_hop":
            return await _hops(Load(bench.cluster.bootstrap, source, source, "ce_id"), None, rate, window_s)
        async with databases.fresh() as dsn:
            room = int(rate * (window_s + 10))  # of the ledger, for each partition
            job = bench.job(
                name,
                Backlog(source, (room,) * PARTITIONS),
                dsn=dsn,
                out_topic=target,
                # one at a time keeps FastStream's and Faust's order; that is enough at this rate
                concurrency=IN_FLIGHT if name in STEPS else 1,
                warmup_s=0.5,
                window_s=0.0,
            )
            if name == "switchyard_step":
                await bench.cluster.exact_topic(dead_letter_topic(job.topic, job.group), PARTITIONS)
            process = await driver.start(job)
            return await _hops(Load(bench.cluster.bootstrap, source, target), process, rate, window_s)

    return run


async def _hops(load: Load, process: driver.Process | None, rate: float, window_s: float) -> Hops:
    """Wait until a first record comes back, then load for a second more than is measured."""
    async with loading(load) as producer:
        await load.send(producer, Due(0, 0), time.monotonic())
        await load.until_seen(within_s=_JOIN_WITHIN_S)
        since = time.monotonic() + 1.0
        await load.run(producer, steadily(rate, window_s + 1.0, tickets=TICKETS))
        await load.until_seen(within_s=5.0)
    found = await process.stop() if process else None
    latencies = load.latencies_ms(since=since)
    unseen = len(load.intended) - len(load.seen)
    return Hops(percentile(latencies, 0.5), percentile(latencies, 0.99), found.cpu_us if found else 0.0, unseen)


async def _half_of_its_best(bench: Bench, databases: Databases, name: str) -> float:
    backlog = await bench.cluster.backlog(
        "bench.b6.best", tickets=TICKETS, records=bench.sized(120_000, 40_000), events=True
    )
    target = await bench.cluster.topic("bench.b6.best.out")
    window_s = bench.sized(4, 2)
    run = step_slices(bench, databases, [name], backlog, target, concurrency=IN_FLIGHT, window_s=window_s)[name]
    return (await run()).rate / 2


def _as_arms(
    slices: Mapping[str, Sequence[Slice[Hops]]], what: str, notes: Mapping[str, float] | None = None
) -> dict[str, Arm]:
    arms: dict[str, Arm] = {}
    for name, of_arm in slices.items():
        found = [one.found for one in of_arm]
        said = {"unseen": sum(one.unseen for one in found), **(notes or {})}
        cpu_us = [one.cpu_us for one in found]
        arms[f"{name} p50 at {what}"] = arm([one.p50 for one in found], "ms", cpu_us=cpu_us, notes=said)
        arms[f"{name} p99 at {what}"] = arm([one.p99 for one in found], "ms", cpu_us=cpu_us, notes=said)
    return arms
