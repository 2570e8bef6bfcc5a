"""B7: the commit frontier alone: a million acknowledgements in random order with 100,000 records in hand."""

import functools

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.driver import interleaved
from benchmarks.job import Job
from benchmarks.result import Arm, Result, arm, at_most, machine, ratios, value_of

ARMS = ("frontier_ours", "frontier_sorted", "frontier_set")
IN_HAND = 100_000


async def b7(bench: Bench) -> Result:
    """Begin, acknowledge at random, ask for the commit every thousandth time."""
    options: dict[str, float | str] = {"acks": bench.sized(1_000_000, 200_000), "in_hand": IN_HAND}
    slices = await interleaved(
        {name: functools.partial(driver.run, Job(name, options=options)) for name in bench.chosen(ARMS)},
        bench.slices,
        bench.told,
    )
    arms: dict[str, Arm] = {}
    for name, of_arm in slices.items():
        figures = [one.found.figures for one in of_arm]
        arms[f"{name}, time"] = arm([found["ack_us"] for found in figures], "µs an ack")
        arms[f"{name}, memory"] = arm([found["bytes"] for found in figures], "bytes a record in hand")
    return Result(
        "B7",
        f"{options['acks']:,} acknowledgements in random order, {IN_HAND:,} in hand",
        arms,
        ratios(arms, [("frontier_ours, time", f"{other}, time") for other in ARMS[1:]]),
        [
            at_most("<= 1 µs an ack", value_of(arms.get("frontier_ours, time")), 1),
            at_most("<= 100 bytes a record in hand", value_of(arms.get("frontier_ours, memory")), 100),
        ],
        machine(slices),
    )
