"""B4: consume, inbox, versioned ticket and outbox in PostgreSQL, publish, commit: how many a second."""

from collections.abc import Awaitable, Callable

from benchmarks import driver
from benchmarks.bench import Bench, proven
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.job import Findings, Job
from benchmarks.result import Result, at_least, at_most, cpu_of, machine, rates, ratios, value_of
from benchmarks.steps import step_slices

ARMS = ("switchyard_step", "cte_keyed", "begin_commit")
ALONE = {"db_alone, 50 a statement": (50, 4), "db_alone, 1 a statement": (1, 8)}  # (batch, connections)
TICKETS = 1_000
IN_FLIGHT = 1_000


async def b4(bench: Bench, databases: Databases) -> Result:
    """Carry a backlog of 1,000 tickets through the whole step."""
    backlog = await bench.cluster.backlog(
        "bench.b4", tickets=TICKETS, records=bench.sized(250_000, 80_000), events=True
    )
    out_topic = await bench.cluster.topic("bench.b4.out")
    slot = {"concurrency": IN_FLIGHT, "warmup_s": 1.0, "window_s": bench.sized(6, 2)}
    slices = await interleaved(
        step_slices(bench, databases, bench.chosen(ARMS), backlog, out_topic, **slot)
        | {
            name: _alone(databases, bench, *ALONE[name]) for name in ALONE if not bench.only or "db_alone" in bench.only
        },
        bench.slices,
        bench.told,
    )
    arms = rates(slices, lambda found: found.rate, "steps/s")
    ours = arms.get("switchyard_step")
    pairs = [("switchyard_step", other) for other in (*ARMS[1:], *ALONE)]
    return Result(
        "B4",
        f"the whole step, {TICKETS:,} tickets",
        arms,
        ratios(arms, pairs),
        [
            at_least("whole step >= 15,000 a second", value_of(ours), 15_000),
            at_most("CPU of the whole step <= 60 µs", cpu_of(ours), 60),
            proven([ours]),
        ],
        machine(slices),
    )


def _alone(databases: Databases, bench: Bench, batch: int, connections: int) -> Callable[[], Awaitable[Findings]]:
    async def run() -> Findings:
        async with databases.fresh() as dsn:
            options: dict[str, float | str] = {"batch": batch, "connections": connections}
            job = Job("db_alone", dsn=dsn, group="alone", warmup_s=0.5, window_s=bench.sized(4, 1), options=options)
            return await driver.run(job)

    return run
