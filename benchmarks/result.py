"""What a benchmark came to: a table for people, JSON for everything else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.driver import Slice
from benchmarks.job import Findings
from benchmarks.stats import Interval, interval, ratio


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm's figure: the median of its slices and the bounds of that median."""

    median: float
    low: float
    high: float
    unit: str
    cpu_us: float | None = None  # a record, of the arm's process
    slices: tuple[float, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)  # what proves it, and what else was seen


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that must hold, and what was measured; `measured` is None where that arm did not run."""

    says: str
    measured: float | None
    met: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome."""

    name: str
    title: str
    arms: Mapping[str, Arm]
    ratios: Mapping[str, Interval] = field(default_factory=dict)
    bars: Sequence[Bar] = ()
    machine: Mapping[str, float] = field(default_factory=dict)
    timelines: Mapping[str, Sequence[tuple[float, int, int]]] = field(default_factory=dict)
    """By arm, where that is what it is about: seconds, tickets that are not finished, workers."""

    def as_json(self, versions: Mapping[str, str]) -> dict[str, Any]:
        """The object that `--json` writes."""
        return {
            "name": self.name,
            "title": self.title,
            "versions": dict(versions),
            "arms": {name: asdict(arm) for name, arm in self.arms.items()},
            "ratios": {name: asdict(found) for name, found in self.ratios.items()},
            "bar": "; ".join(bar.says for bar in self.bars),
            "bars": [asdict(bar) for bar in self.bars],
            "met": bool(self.bars) and all(bar.met for bar in self.bars),
            "machine": dict(self.machine),
            "timelines": dict(self.timelines),
        }

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table("arm", "median", "95 % interval", "unit", "CPU µs", "notes", title=f"{self.name}: {self.title}")
        for name, arm in self.arms.items():
            notes = ", ".join(f"{what} {_short(value)}" for what, value in arm.notes.items())
            bounds = f"{_short(arm.low)} .. {_short(arm.high)}"
            cpu = "" if arm.cpu_us is None else _short(arm.cpu_us)
            table.add_row(name, _short(arm.median), bounds, arm.unit, cpu, notes)
        console.print(table)
        for name, found in self.ratios.items():
            console.print(f"  {name}: {found.median:.3f} ({found.low:.3f} .. {found.high:.3f})")
        for bar in self.bars:
            measured = "not measured" if bar.measured is None else _short(bar.measured)
            console.print(f"  [{'green' if bar.met else 'red'}]{bar.says}[/]: {measured}")


def _short(value: Any) -> str:
    if not isinstance(value, float | int) or isinstance(value, bool):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def arm(
    values: Sequence[float], unit: str, *, cpu_us: Sequence[float] = (), notes: Mapping[str, Any] | None = None
) -> Arm:
    """An arm from the figures of its slices."""
    found = interval(values)
    cpu = interval(cpu_us).median if cpu_us else None
    return Arm(found.median, found.low, found.high, unit, cpu, tuple(values), notes or {})


def ratios(arms: Mapping[str, Arm], pairs: Sequence[tuple[str, str]]) -> dict[str, Interval]:
    """The paired ratios of arms that ran, slice by slice."""
    return {
        f"{ours} / {theirs}": ratio(arms[ours].slices, arms[theirs].slices)
        for ours, theirs in pairs
        if ours in arms and theirs in arms
    }


def value_of(arm: Arm | None) -> float | None:
    """The figure of an arm that may not have run."""
    return arm.median if arm else None


def cpu_of(arm: Arm | None) -> float | None:
    """The microseconds of processor time a record of an arm that may not have run."""
    return arm.cpu_us if arm else None


def at_least(says: str, measured: float | None, bound: float) -> Bar:
    """A bar that is met from `bound` on."""
    return Bar(says, measured, measured is not None and measured >= bound)


def at_most(says: str, measured: float | None, bound: float) -> Bar:
    """A bar that is met up to `bound`."""
    return Bar(says, measured, measured is not None and measured <= bound)


def proof(slices: Sequence[Slice[Findings]]) -> dict[str, int]:
    """What the ledgers of an arm's slices say against it, added up: all of it should be 0."""
    found = [one.found for one in slices]
    checked = sorted({what for one in found for what in one.figures})
    return {
        "out of order": sum(one.out_of_order for one in found),
        "overlaps": sum(one.overlaps for one in found),
        "handled again": sum(one.handled - one.distinct for one in found if one.distinct),
        "unsafe commits": sum(one.unsafe_commits for one in found),
        **{what: round(sum(one.figures.get(what, 0) for one in found)) for what in checked},
    }


def machine(slices: Mapping[str, Sequence[Slice[Any]]]) -> dict[str, float]:
    """How the machine was while they ran."""
    every = [one for arm_slices in slices.values() for one in arm_slices]
    speeds = sorted(one.calibration_s for one in every)
    return {
        "calibration_ms_fastest": speeds[0] * 1e3,
        "calibration_ms_slowest": speeds[-1] * 1e3,
        "steal_most": max(one.steal for one in every),
        "rounds": max(len(arm_slices) for arm_slices in slices.values()),
    }


def rates(
    slices: Mapping[str, Sequence[Slice[Findings]]], value: Callable[[Findings], float], unit: str
) -> dict[str, Arm]:
    """An arm's figure for each, its processor time and its proof beside it."""
    return {
        name: arm(
            [value(one.found) for one in of_arm],
            unit,
            cpu_us=[one.found.cpu_us for one in of_arm],
            notes=proof(of_arm),
        )
        for name, of_arm in slices.items()
    }
