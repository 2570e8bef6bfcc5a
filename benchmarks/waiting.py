"""B1 and B2: handlers that wait, as on a model: how much of what may be in flight really is."""

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.bench import Bench, proven
from benchmarks.database import Databases
from benchmarks.driver import Slice, interleaved
from benchmarks.job import Findings
from benchmarks.result import Arm, Bar, Result, at_least, at_most, cpu_of, machine, rates, value_of
from benchmarks.steps import step_slices

PEERS = ("naive_keyed", "semaphore", "faststream_workers", "faust_agent")
B1_IN_FLIGHT = (100, 500, 1_000, 5_000)
B1_BARS = {1_000: 0.999, 5_000: 0.99}
B2_BARS = {1: 95, 10: 900, 100: 8_700, 1_000: 8_900, 10_000: 8_900}
_B2_WAIT_S = 0.01


async def b1(bench: Bench, databases: Databases) -> Result:
    """Handlers wait a second, at several numbers in flight; for us the whole step, settled and published, as well.

    Efficiency: the seconds that handlers were to wait, as far as they lie in the steady window, over
    (in flight x window). What a handler takes beyond its second is lost.
    """
    window_s = bench.sized(6, 3)
    out_topic = await bench.cluster.topic("bench.b1.out")
    arms: dict[str, Arm] = {}
    state: dict[str, float] = {}
    for in_flight in B1_IN_FLIGHT if not bench.quick else B1_IN_FLIGHT[-2:]:
        backlog = await bench.cluster.backlog(
            f"bench.b1.{in_flight}", tickets=max(10_000, in_flight), records=in_flight * (window_s + 6), events=True
        )
        slot = {"concurrency": in_flight, "wait_s": 1.0, "warmup_s": 2.5, "window_s": window_s}
        alone = ["switchyard", *(PEERS if in_flight <= 1_000 else PEERS[:2])]
        slices = await interleaved(
            {name: bench.slice_of(name, backlog, **slot) for name in bench.chosen(alone)}
            | step_slices(bench, databases, bench.chosen(["switchyard_step"]), backlog, out_topic, **slot),
            bench.slices,
            bench.told,
        )
        arms |= _efficiencies(slices, in_flight)
        state = machine(slices)
    return Result("B1", "handler waits 1 s, 10,000 tickets", arms, {}, _b1_bars(arms), state)


def _efficiencies(slices: Mapping[str, Sequence[Slice[Findings]]], in_flight: int) -> dict[str, Arm]:
    measured = rates(slices, lambda found: found.useful_s / (in_flight * found.window_s), "efficiency")
    return {f"{name}, {in_flight:,} in flight": arm for name, arm in measured.items()}


def _b1_bars(arms: Mapping[str, Arm]) -> list[Bar]:
    steps = {size: arms.get(f"switchyard_step, {size:,} in flight") for size in B1_BARS}
    alone = arms.get("switchyard, 1,000 in flight")
    whole = steps[1_000]
    return [
        *(
            at_least(f"whole step >= {B1_BARS[size]} with {size:,} in flight", value_of(step), B1_BARS[size])
            for size, step in steps.items()
        ),
        at_most("CPU of the whole step <= 100 µs", cpu_of(whole), 100),
        at_most("CPU of the bookkeeping alone <= 20 µs", cpu_of(alone), 20),
        proven([*steps.values(), alone]),
    ]


async def b2(bench: Bench) -> Result:
    """Handlers wait 10 ms behind a backlog of few or many tickets; then many tickets with a thousand in flight."""
    arms: dict[str, Arm] = {}
    state: dict[str, float] = {}
    for tickets, in_flight in [*((tickets, 100) for tickets in B2_BARS), (10_000, 1_000)]:
        most = min(tickets, in_flight)
        window_s = bench.sized(4, 2)
        backlog = await bench.cluster.backlog(
            f"bench.b2.{tickets}.{in_flight}", tickets=tickets, records=_enough_records(in_flight, window_s)
        )
        slices = await interleaved(
            {
                name: bench.slice_of(
                    name, backlog, concurrency=in_flight, wait_s=_B2_WAIT_S, warmup_s=1.0, window_s=window_s
                )
                for name in bench.chosen(["switchyard", *PEERS])
            },
            bench.slices,
            bench.told,
        )
        arms |= _with_occupancy(slices, most, f"{tickets:,} tickets, {in_flight:,} in flight")
        state = machine(slices)
    return Result("B2", "handler waits 10 ms, backlog", arms, {}, _b2_bars(arms), state)


def _enough_records(in_flight: int, window_s: float) -> int:
    """What lasts for the slice also where an arm works on many records of a ticket at once."""
    return int(in_flight / _B2_WAIT_S * (window_s + 3))


def _with_occupancy(slices: Mapping[str, Sequence[Slice[Findings]]], most: int, what: str) -> dict[str, Arm]:
    """Rates, and beside them the mean number of lanes that ran over the number that could have."""
    measured = rates(slices, lambda found: found.rate, "records/s")
    return {
        f"{name}, {what}": Arm(
            *(arm.median, arm.low, arm.high, arm.unit, arm.cpu_us, arm.slices),
            notes={
                **arm.notes,
                "occupancy": median([s.found.busy_s / (most * s.found.window_s) for s in slices[name]]),
            },
        )
        for name, arm in measured.items()
    }


def _b2_bars(arms: Mapping[str, Arm]) -> list[Bar]:
    ours = {tickets: arms.get(f"switchyard, {tickets:,} tickets, 100 in flight") for tickets in B2_BARS}
    many = arms.get("switchyard, 10,000 tickets, 1,000 in flight")
    unsafe = arms.get("semaphore, 10,000 tickets, 100 in flight")
    best = ours[10_000]
    occupancy = best.notes["occupancy"] / unsafe.notes["occupancy"] if best and unsafe else None
    return [
        *(
            at_least(f"{tickets:,} tickets >= {B2_BARS[tickets]:,} records/s", value_of(arm), B2_BARS[tickets])
            for tickets, arm in ours.items()
        ),
        at_least("10,000 tickets, 1,000 in flight >= 80,000 records/s", value_of(many), 80_000),
        at_least("occupancy >= .97 of the unsafe semaphore's", occupancy, 0.97),
        at_most("CPU <= 20 µs a record", cpu_of(best), 20),
        proven([*ours.values(), many]),
    ]
