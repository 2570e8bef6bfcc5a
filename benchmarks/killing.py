"""B10: SIGKILL at load: what is lost, what is done again, and how long nothing moves."""

from typing import Any

from benchmarks.bench import Bench
from benchmarks.crash import SESSION_TIMEOUT_S, Crash, crash
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.result import Result, arm, at_most, machine, value_of

ARMS = ("switchyard_step", "naive_keyed", "faststream_workers", "faust_agent", "semaphore")
IN_FLIGHT = 500
_WAIT_S = 0.05


async def b10(bench: Bench, databases: Databases) -> Result:
    """Kill workers of each arm and let others take over."""

    def one(name: str) -> Any:
        async def run() -> Crash:
            return await crash(bench, databases, name, tickets=2_000, concurrency=IN_FLIGHT, wait_s=_WAIT_S)

        return run

    slices = await interleaved({name: one(name) for name in bench.chosen(ARMS)}, 1 if bench.quick else 3, bench.told)
    arms = {}
    for name, of_arm in slices.items():
        found = [one.found for one in of_arm]
        notes = {
            "lost": sum(one.lost for one in found),
            "most again": max(one.again for one in found),
            "paid twice": sum(one.again_stored for one in found),
            "of": sum(one.handled for one in found),
        }
        arms[name] = arm([one.first_new_s for one in found], "s to the first new", notes=notes)
    ours = arms.get("switchyard_step")
    bound_s = SESSION_TIMEOUT_S + 2
    return Result(
        "B10",
        f"SIGKILL at load, session time-out {SESSION_TIMEOUT_S:.0f} s, {IN_FLIGHT} in flight",
        arms,
        {},
        [
            at_most(f"first new effect <= {bound_s:.0f} s", value_of(ours), bound_s),
            at_most("lost 0", float(ours.notes["lost"]) if ours else None, 0),
            at_most("handled again <= in flight", float(ours.notes["most again"]) if ours else None, IN_FLIGHT),
            at_most("calls paid twice 0", float(ours.notes["paid twice"]) if ours else None, 0),
        ],
        machine(slices),
    )
