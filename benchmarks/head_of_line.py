"""B8: one ticket waits a minute, the rest 10 ms."""

from benchmarks.bench import Bench, proven
from benchmarks.crash import crash
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.result import Arm, Result, arm, at_least, at_most, machine, rates, ratios

ARMS = ("switchyard", "naive_keyed", "faststream_ack", "faust_agent")
TICKETS = 1_000
_SLOW: dict[str, float | str] = {"slow_key": "t-0", "slow_s": 60.0}


async def b8(bench: Bench, databases: Databases) -> Result:
    """Compare each engine beside a slow ticket with itself undisturbed; then kill a worker while the ticket waits."""
    window_s = bench.sized(8, 3)
    backlog = await bench.cluster.backlog("bench.b8", tickets=TICKETS, records=10_000 * (window_s + 4))
    slot = {"concurrency": 100, "wait_s": 0.01, "warmup_s": 1.0, "window_s": window_s}
    runs = {}
    for name in bench.chosen(ARMS):
        # Faust keeps the order only one at a time in each partition
        own = {**slot, "concurrency": 1} if name == "faust_agent" else slot
        runs[f"{name}, undisturbed"] = bench.slice_of(name, backlog, **own)
        runs[f"{name}, one waits"] = bench.slice_of(name, backlog, options=_SLOW, **own)
    slices = await interleaved(runs, bench.slices, bench.told)
    arms = rates(slices, lambda found: found.rate, "records/s")
    compared = ratios(arms, [(f"{name}, one waits", f"{name}, undisturbed") for name in ARMS])
    kept = compared.get("switchyard, one waits / switchyard, undisturbed")
    arms |= await _replayed(bench, databases)
    again = arms.get("switchyard_step, killed meanwhile")
    return Result(
        "B8",
        "one ticket waits 60 s, the rest 10 ms",
        arms,
        compared,
        [
            at_least("the rest >= .98 of undisturbed", kept.median if kept else None, 0.98),
            at_most("settled records handled again after SIGKILL: 0", again.median if again else None, 0),
            proven([arms.get("switchyard, one waits")]),
        ],
        machine(slices),
    )


async def _replayed(bench: Bench, databases: Databases) -> dict[str, Arm]:
    """How many records that were settled above the waiting one are decided again."""
    if not bench.chosen(["switchyard_step"]):
        return {}
    found = await crash(
        bench, databases, "switchyard_step", tickets=TICKETS, concurrency=100, wait_s=0.01, options=_SLOW
    )
    notes = {"lost": found.lost, "handled again": found.again}
    return {"switchyard_step, killed meanwhile": arm([found.again_stored], "records", notes=notes)}
