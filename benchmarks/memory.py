"""B13: what a ticket in flight weighs, and whether a worker grows."""

from benchmarks.bench import Bench
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.job import Findings
from benchmarks.result import Arm, Result, arm, at_most, machine, value_of
from benchmarks.stats import slope
from benchmarks.steps import step_slices

ARMS = ("switchyard", "naive_keyed", "semaphore")
IN_FLIGHT = 5_000
BACKLOG = 10_000


async def b13(bench: Bench, databases: Databases) -> Result:
    """Hold 5,000 tickets in flight beside a backlog of 10,000; then work for a while and watch the memory."""
    target = await bench.cluster.topic("bench.b13.out")
    held = await bench.cluster.backlog("bench.b13.held", tickets=BACKLOG, records=BACKLOG, events=True)
    slot = {"concurrency": IN_FLIGHT, "wait_s": 8.0, "warmup_s": 0.0, "window_s": 0.1}
    weighed = await interleaved(
        {name: bench.slice_of(name, held, **slot) for name in bench.chosen(ARMS)}
        | step_slices(bench, databases, bench.chosen(["switchyard_step"]), held, target, **slot),
        1 if bench.quick else 3,
        bench.told,
    )
    arms: dict[str, Arm] = {
        f"{name}, in flight": arm([_weight_kb(one.found) for one in of_arm], "KB a ticket in flight")
        for name, of_arm in weighed.items()
    }
    soak_s = bench.sized(60, 8)
    long = await bench.cluster.backlog(
        "bench.b13.long", tickets=BACKLOG, records=bench.sized(900_000, 80_000), events=True
    )
    slot = {"concurrency": 100, "wait_s": 0.01, "warmup_s": soak_s / 3, "window_s": soak_s}
    soaked = await interleaved(
        {name: bench.slice_of(name, long, **slot) for name in bench.chosen(ARMS[:1])}
        | step_slices(bench, databases, bench.chosen(["switchyard_step"]), long, target, **slot),
        1,
        bench.told,
    )
    for name, of_arm in soaked.items():
        grown = [_growth(one.found) for one in of_arm]
        arms[f"{name}, growth"] = arm(grown, "bytes a record handled")
    ours = arms.get("switchyard_step, in flight")
    growth = arms.get("switchyard_step, growth")
    return Result(
        "B13",
        f"{IN_FLIGHT:,} in flight, {BACKLOG:,} waiting",
        arms,
        {},
        [
            at_most("<= 20 KB a ticket in flight", value_of(ours), 20),
            at_most("growth <= 1 byte a record handled", value_of(growth), 1),
        ],
        machine(weighed | soaked),
    )


def _weight_kb(found: Findings) -> float:
    """What was added to the memory between the start and the fullest moment, for each ticket in flight."""
    sizes = [size for _, size in found.rss_bytes]
    return (max(sizes) - sizes[0]) / IN_FLIGHT / 1024


def _growth(found: Findings) -> float:
    """The rise of the memory once warm, over the rate of the work."""
    opened = found.rss_bytes[-1][0] - found.window_s
    warm = [(at, size) for at, size in found.rss_bytes if at >= opened]
    return slope([at for at, _ in warm], [float(size) for _, size in warm]) / max(found.rate, 1.0)
