"""Gold decisions of tickets, and which changes brought a decision nearer to them or took it away."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import Misconfigured
from ops.replay.compare import Compared, Decision

_COMPARED = ("label", "disposition", "reply", "orders", "agent")


@dataclass(frozen=True, slots=True)
class GoldReport:
    """Tickets by what the change did to them; those of which no gold is given are left out."""

    judged: int
    right_before: int
    right_now: int
    regressions: tuple[str, ...]
    improvements: tuple[str, ...]


def read_gold(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """JSON lines of `ticket_id`, `round` (the last when left out) and any of label, disposition, reply, orders, agent.

    Raises Misconfigured, naming the line.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from error
    return dict(_row(file, number, line) for number, line in enumerate(lines, 1))


def _row(file: Path, number: int, line: str) -> tuple[str, Mapping[str, Any]]:
    try:
        row = json.loads(line)
        if not isinstance(row["ticket_id"], str) or not row.keys() & set(_COMPARED):
            raise KeyError
    except (ValueError, KeyError, TypeError):
        wanted = f"an object with ticket_id and any of {', '.join(_COMPARED)}"
        raise Misconfigured(f"{file.name} line {number} is not {wanted}") from None
    return row["ticket_id"], row


def judged(tickets: Sequence[Compared], gold: Mapping[str, Mapping[str, Any]]) -> GoldReport:
    """Compare both runs with the gold."""
    verdicts = {
        one.ticket_id: (_is_right(_decision(one, gold[one.ticket_id]), gold[one.ticket_id]))
        for one in tickets
        if one.ticket_id in gold
    }
    return GoldReport(
        judged=len(verdicts),
        right_before=sum(before for before, _ in verdicts.values()),
        right_now=sum(now for _, now in verdicts.values()),
        regressions=tuple(ticket_id for ticket_id, (before, now) in verdicts.items() if before and not now),
        improvements=tuple(ticket_id for ticket_id, (before, now) in verdicts.items() if now and not before),
    )


def _decision(ticket: Compared, gold: Mapping[str, Any]) -> Decision | None:
    wanted = [one for one in ticket.decisions if "round" not in gold or one.round == gold["round"]]
    return wanted[-1] if wanted else None


def _is_right(decision: Decision | None, gold: Mapping[str, Any]) -> tuple[bool, bool]:
    """(before, now)"""
    if decision is None:
        return False, False
    named = [name for name in _COMPARED if name in gold]
    before, now = decision.old, decision.new
    return (
        before is not None and all(before[name] == gold[name] for name in named),
        now is not None and all(now[name] == gold[name] for name in named),
    )
