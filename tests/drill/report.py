"""Tells what the runs found: a line a run, a table at the end."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.drill.run import Result

_SHOWN = 8  # violations of a run


def told(result: Result, rows: str, folder: Path, *, together: bool = False) -> str:
    """One run, in a line; with what was broken and how to run it again when something was."""
    plan = result.plan
    faults = ", ".join(f"{row.number} {row.name}" for row in plan.rows)
    rest = "never at rest" if result.recovery_s is None else f"at rest after {result.recovery_s:.1f} s"
    head = (
        f"seed {plan.seed}: {result.events} events, {result.effects} effects, {rest}, {result.took_s:.0f} s ({faults})"
    )
    if not result.violations:
        return f"ok   {head}"
    broken = [f"  {violation.law}: {violation.what}" for violation in result.violations[:_SHOWN]]
    more = [f"  and {len(result.violations) - _SHOWN} more"] if len(result.violations) > _SHOWN else []
    again = (
        f"  again: python -m tests.drill --seed {plan.seed}"
        + (f" --rows {rows}" if rows else "")
        + " --together" * together
    )
    done = [f"  done: {note}" for note in result.notes]
    return "\n".join([f"FAIL {head}", *broken, *more, *done, again, f"  ledgers: {folder}"])


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """The figures of all runs."""
    laws = Counter(violation.law for result in results for violation in result.violations)
    faults = Counter(f"{row.number} {row.name}" for result in results for row in result.plan.rows)
    recoveries = [result.recovery_s for result in results if result.recovery_s is not None]
    return {
        "seeds": [result.plan.seed for result in results],
        "failed_seeds": [result.plan.seed for result in results if result.violations],
        "faults": dict(sorted(faults.items(), key=lambda item: int(item[0].split()[0]))),
        "events": sum(result.events for result in results),
        "effects": sum(result.effects for result in results),
        "lost": laws["I1"] + laws["I5"],
        "duplicated": laws["I2"],
        "order_violations": laws["I3"],
        "commits_too_far": laws["I4"],
        "not_at_rest": laws["I6"],
        "bought_again": laws["P"],
        "handled_again": laws["R"],
        "ended_by_themselves": laws["E"],
        "tries_absorbed_by_their_key": sum(result.tries - result.effects for result in results),
        "calls_lost_before_the_journal": sum(result.bought_twice for result in results),
        "longest_recovery_s": round(max(recoveries, default=0.0), 1),
        "seconds": round(sum(result.took_s for result in results)),
    }


def as_table(results: Sequence[Result]) -> str:
    """The figures of all runs, for people."""
    figures = as_json(results)
    faults = figures.pop("faults")
    figures["seeds"] = (
        f"{len(figures['seeds'])} ({min(figures['seeds'], default=0)} to {max(figures['seeds'], default=0)})"
    )
    lines = [f"{name.replace('_', ' '):<32}{value}" for name, value in figures.items()]
    return "\n".join(["", *lines, "", "faults injected", *(f"  {count:>4}  {name}" for name, count in faults.items())])
