"""burst: thousands of tickets at once, and workers that come and go by themselves."""

import itertools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.bench import Bench
from benchmarks.database import Databases
from benchmarks.desk import Desk, Timeline, desk
from benchmarks.driver import Slice, interleaved
from benchmarks.gateway import standin
from benchmarks.result import Arm, Bar, Result, arm, at_least, at_most, machine

AUTOSCALED = "switchyard autoscaled"
LIMITED = "switchyard under a model limit"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a burst is, and what meets it."""

    tickets: int
    limited_tickets: int  # for the arm with a model limit
    fixed: tuple[int, ...]  # numbers of workers to compare with
    most: int = 8
    lanes: int = 20  # of a worker: with the latency they say what one can do
    limited_lanes: int = 5  # fewer, so that nothing but the model limit is short
    latency_ms: int = 1_000
    goal: Mapping[str, Any] = field(default_factory=dict)  # unlike the default

    def environment(self, standin_url: str) -> dict[str, str]:
        """The settings of workers and autoscaler."""
        return {
            "SWITCHYARD_LLM__STANDIN_URL": standin_url,
            "SWITCHYARD_AGENTS__LANES": str(self.lanes),
            "SWITCHYARD_AUTOSCALE__MOST": str(self.most),
            **{f"SWITCHYARD_AUTOSCALE__{name.upper()}": str(value) for name, value in self.goal.items()},
        }

    def limit(self) -> dict[str, str]:
        """A model limit that feeds two workers and a half."""
        each_a_minute = self.limited_lanes * 60_000 / self.latency_ms
        return {
            "SWITCHYARD_AGENTS__LANES": str(self.limited_lanes),
            "SWITCHYARD_AUTOSCALE__MOST": str(WHOLE.most),
            "SWITCHYARD_LLM__LIMITS": json.dumps({"openai": {"requests": round(2.5 * each_a_minute)}}),
        }


WHOLE = Size(20_000, 1_200, fixed=(4, 6, 8))
QUICK = Size(
    300,
    160,
    fixed=(3,),
    most=3,
    lanes=4,
    limited_lanes=4,
    goal={"target_s": 5, "calm_s": 10, "settle_s": 10, "every_s": 1},
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one burst came to."""

    timeline: Timeline
    numbers: tuple[int, ...]  # of workers that were decided on, one after the other
    reasons: tuple[str, ...]

    @property
    def drained_s(self) -> float:
        """From the first ticket published to the last one handled."""
        return next(at_s for at_s, open_, _ in self.timeline if not open_)

    @property
    def reversals(self) -> int:
        """How often the number went the other way than before."""
        ways = [after > before for before, after in itertools.pairwise(self.numbers) if after != before]
        return sum(way != other for way, other in itertools.pairwise(ways))


async def burst(bench: Bench, databases: Databases) -> Result:
    """Autoscaled against fixed numbers of workers that are there from the first; then with a model limit.

    Each arm once: it takes minutes.
    """
    size = QUICK if bench.quick else WHOLE
    if bench.tickets is not None:
        size = replace(size, tickets=bench.tickets, limited_tickets=min(bench.tickets, size.limited_tickets))
    async with standin(size.latency_ms) as url:
        environment = size.environment(url)
        runs: dict[str, Callable[[], Awaitable[Run]]] = {
            AUTOSCALED: lambda: _autoscaled(bench, databases, environment, size.tickets, settled_at=1),
            **{
                f"{workers} workers": lambda workers=workers: _fixed(  # type: ignore[misc]
                    bench, databases, environment, size.tickets, workers
                )
                for workers in size.fixed
            },
            LIMITED: lambda: _autoscaled(bench, databases, environment | size.limit(), size.limited_tickets),
        }
        slices = await interleaved({name: runs[name] for name in bench.chosen(runs)}, 1, bench.told)
    return _result(size, slices)


def _result(size: Size, slices: Mapping[str, Sequence[Slice[Run]]]) -> Result:
    found = {name: of_arm[0].found for name, of_arm in slices.items()}
    units = {LIMITED: f"s to drain {size.limited_tickets:,}, {size.limited_lanes} lanes a worker"}
    arms = {name: _arm(run, units.get(name, "s to drain")) for name, run in found.items()}
    return Result(
        "burst",
        f"{size.tickets:,} tickets at once, {size.latency_ms / 1000:g} s a model call, {size.lanes} lanes a worker",
        arms,
        {},
        [*_bars_of_autoscaled(found), *_bars_of_limited(found)],
        machine(slices),
        {name: run.timeline for name, run in found.items()},
    )


def _arm(run: Run, unit: str) -> Arm:
    notes = {"numbers": run.numbers, "reversals": run.reversals, "why": run.reasons}
    return arm([run.drained_s], unit, notes=notes)


def _best_s(found: Mapping[str, Run]) -> float | None:
    return min((run.drained_s for name, run in found.items() if name not in (AUTOSCALED, LIMITED)), default=None)


def _bars_of_autoscaled(found: Mapping[str, Run]) -> list[Bar]:
    run, best_s = found.get(AUTOSCALED), _best_s(found)
    times = run.drained_s / best_s if run and best_s else None
    return [
        at_most("time to drain <= 1.25 of that with the best fixed number", times, 1.25),
        at_least("more workers came by themselves", max(run.numbers) if run else None, 2),
        at_most("one was left in the end", run.numbers[-1] if run else None, 1),
        at_most("reversals <= 1", run.reversals if run else None, 1),
    ]


def _bars_of_limited(found: Mapping[str, Run]) -> list[Bar]:
    run = found.get(LIMITED)
    named = sum("bounded by: model limit" in reason for reason in run.reasons) if run else None
    return [
        at_most("a limit for 2.5 workers: no more than 3", max(run.numbers) if run else None, 3),
        at_least("a reason names the model limit", named, 1),
    ]


async def _autoscaled(
    bench: Bench, databases: Databases, environment: Mapping[str, str], tickets: int, settled_at: int | None = None
) -> Run:
    """From one worker on, and until there are `settled_at` again."""
    async with desk(bench, databases, environment) as opened:
        await opened.scale(1)
        async with opened.autoscaled():
            timeline = await opened.burst(tickets, settled_at)
        return await _run(opened, timeline)


async def _fixed(bench: Bench, databases: Databases, environment: Mapping[str, str], tickets: int, workers: int) -> Run:
    async with desk(bench, databases, environment) as opened:
        await opened.scale(workers)
        return await _run(opened, await opened.burst(tickets))


async def _run(opened: Desk, timeline: Timeline) -> Run:
    decisions, advice = await opened.decisions(), await opened.advice()
    reasons = [decision.reason for decision in decisions if decision.reason] + [advice.reason if advice else ""]
    numbers = tuple(workers for workers, _ in itertools.groupby(decision.workers for decision in decisions))
    return Run(timeline, numbers, tuple(filter(None, reasons)))
