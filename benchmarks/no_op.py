"""B3: how many records a second, when the handler does nothing."""

from benchmarks.bench import Bench, proven
from benchmarks.driver import interleaved
from benchmarks.result import Result, at_least, at_most, cpu_of, machine, rates, ratios, value_of

ARMS = ("raw", "naive_keyed", "switchyard", "faststream_ack", "faststream_first", "faust_agent")
TICKETS = 1_000


async def b3(bench: Bench) -> Result:
    """Read a million records with every arm."""
    backlog = await bench.cluster.backlog("bench.b3", tickets=TICKETS, records=bench.sized(1_000_000, 150_000))
    window_s = bench.sized(6, 2)
    slices = await interleaved(
        {
            name: bench.slice_of(name, backlog, concurrency=100, warmup_s=0.3, window_s=window_s)
            for name in bench.chosen(ARMS)
        },
        bench.slices,
        bench.told,
    )
    arms = rates(slices, lambda found: found.rate, "records/s")
    ours = arms.get("switchyard")
    return Result(
        "B3",
        f"no-op handler, {backlog_size(backlog.ends)} records of 200 bytes, {TICKETS:,} tickets",
        arms,
        ratios(arms, [("switchyard", other) for other in ARMS if other != "switchyard"] + [("naive_keyed", "raw")]),
        [
            at_least("switchyard >= 150,000 records/s", value_of(ours), 150_000),
            at_most("switchyard <= 7 µs of CPU a record", cpu_of(ours), 7),
            proven([ours]),
        ],
        machine(slices),
    )


def backlog_size(ends: tuple[int, ...]) -> str:
    """How many records, for people."""
    return f"{sum(ends):,}"
