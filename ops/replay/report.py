"""What a replay tells: totals, and each ticket in both runs; as JSON and as a table for a terminal."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ops.replay.compare import Compared, Decision, Difference
from ops.replay.gold import GoldReport

if TYPE_CHECKING:
    from rich.console import Group

MOST_ROWS, MOST_STOPPED = 100, 10
"""What is shown on a terminal: more are for a file."""

STATUSES = ("same", "different", "missing", "failed", "unseeded")


@dataclass(frozen=True, slots=True)
class Report:
    """A replay and what came of it."""

    what: str  # the window, in words
    candidate: str  # what was run in place of what ran
    tickets: Sequence[Compared]
    records: int  # in the window, of the tickets and tenants asked for
    unhandled: int  # of these, those that no agent had settled
    unreadable: int
    warnings: Sequence[str]
    elapsed_s: float
    lived_s: float  # from the first step to the last, in life
    gold: GoldReport | None = None

    @property
    def totals(self) -> Mapping[str, int]:
        """Tickets by status."""
        counted = Counter(ticket.status for ticket in self.tickets)
        return {status: counted[status] for status in STATUSES}

    @property
    def is_complete(self) -> bool:
        """Whether every ticket was run to its end from the state that it had."""
        return not any(self.totals[status] for status in ("missing", "failed", "unseeded"))

    @property
    def has_differences(self) -> bool:
        """Whether any ticket did not come out the same."""
        return self.totals["same"] < len(self.tickets)

    def as_document(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        old, new = [ticket.old for ticket in self.tickets], [ticket.new for ticket in self.tickets]
        return {
            "what": self.what,
            "candidate": self.candidate,
            "records": self.records,
            "unhandled": self.unhandled,
            "unreadable": self.unreadable,
            "totals": {"tickets": len(self.tickets), **self.totals},
            "steps": sum(ticket.steps for ticket in self.tickets),
            "elapsed_s": round(self.elapsed_s, 3),
            "lived_s": round(self.lived_s, 3),
            "cost_usd": {
                "old": float(sum((one.cost_usd for one in old), Decimal(0))),
                "new": float(sum((one.cost_usd for one in new), Decimal(0))),
                "live": float(sum((ticket.live_usd for ticket in self.tickets), Decimal(0))),
            },
            "took_s": {
                "old": round(sum(one.took_s for one in old), 3),
                "new": round(sum(one.took_s for one in new), 3),
            },
            "live_calls": sum(ticket.live_calls for ticket in self.tickets),
            "warnings": list(self.warnings),
            "gold": asdict(self.gold) if self.gold else None,
            "tickets": [_ticket(ticket) for ticket in self.tickets],
        }


def reply_diff(decision: Decision) -> list[str]:
    """The old and the new reply, line by line, as a unified diff without its head."""
    old, new = ((side or {}).get("reply") or "" for side in (decision.old, decision.new))
    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1))[2:]


def _ticket(ticket: Compared) -> dict[str, Any]:
    first = ticket.differences[0] if ticket.differences else None
    return {
        "ticket_id": ticket.ticket_id,
        "tenant_id": ticket.tenant_id,
        "status": ticket.status,
        "steps": ticket.steps,
        "differs_from": asdict(first) if first else None,
        "differences": [asdict(one) for one in ticket.differences],
        "seed_differences": [asdict(one) for one in ticket.seed_differences],
        "missing": ticket.missing,
        "problem": ticket.problem,
        "unfinished": ticket.unfinished,
        "decisions": [
            {
                "round": one.round,
                "changed": list(one.changed),
                "old": one.old,
                "new": one.new,
                "reply_diff": reply_diff(one),
            }
            for one in ticket.decisions
        ],
        "old": _costs(ticket, "old"),
        "new": _costs(ticket, "new"),
        "live_calls": ticket.live_calls,
    }


def _costs(ticket: Compared, run: str) -> dict[str, Any]:
    costs = getattr(ticket, run)
    return {"answers": costs.answers, "cost_usd": float(costs.cost_usd), "took_s": round(costs.took_s, 4)}


def begin_to_differ(tickets: Iterable[Compared]) -> Sequence[tuple[str, int]]:
    """The steps at which tickets begin to differ, and how many do there, most first."""
    return Counter(in_a_line(one.differences[0]) for one in tickets if one.status == "different").most_common()


def in_a_line(difference: Difference) -> str:
    """A step that came out otherwise, and in what."""
    return f"{difference.group} on {difference.type}: {', '.join(difference.what)}"


def as_table(report: Report) -> Group:
    """Totals, and a row for each round that came out otherwise, for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    rows = [row for ticket in report.tickets for row in _rows(ticket)]
    table = Table("ticket", "then", "now", "differs from", box=None, pad_edge=False)
    for cells in rows[:MOST_ROWS]:
        table.add_row(*map(escape, cells))
    lines = map(escape, [*_head(report), *_stopped(report)])
    return Group(*lines, *([table] if rows else []), *_more(len(rows), MOST_ROWS))


def _head(report: Report) -> list[str]:
    document = report.as_document()
    cost = document["cost_usd"]
    lines = [
        f"replay of {report.what}: {report.candidate}",
        f"{len(report.tickets)} tickets: {_counts(report)}",
        f"{document['steps']} steps in {report.elapsed_s:.1f} s ({report.lived_s:.1f} s in life)",
        f"answers ${cost['old']:.4f} then, ${cost['new']:.4f} now, "
        f"${cost['live']:.4f} of it paid in {document['live_calls']} live calls",
    ]
    if report.unhandled or report.unreadable:
        lines.append(f"{report.unhandled} records were not handled in life, {report.unreadable} cannot be read")
    if gold := report.gold:
        lines.append(f"gold: {gold.right_before} of {gold.judged} right then, {gold.right_now} now")
        for name, ids in (("regressions", gold.regressions), ("improvements", gold.improvements)):
            lines.append(f"{len(ids)} {name}{': ' if ids else ''}{' '.join(ids)}")
    lines += [f"{count} differ from {step}" for step, count in begin_to_differ(report.tickets)]
    return [*lines, *(f"warning: {warning}" for warning in report.warnings)]


def _stopped(report: Report) -> list[str]:
    """A line for each ticket that could not be run to its end."""
    why = [f"{one.ticket_id} {one.status}: {one.missing or one.problem}" for one in report.tickets if _has_stopped(one)]
    return [*why[:MOST_STOPPED], *_more(len(why), MOST_STOPPED)]


def _has_stopped(ticket: Compared) -> bool:
    return bool(ticket.missing or ticket.problem)


def _more(count: int, shown: int) -> list[str]:
    return [f"and {count - shown} more: --html FILE and --json tell of all"] if count > shown else []


def _counts(report: Report) -> str:
    return ", ".join(f"{count} {status}" for status, count in report.totals.items() if count) or "none"


def _rows(ticket: Compared) -> list[tuple[str, ...]]:
    if ticket.status == "same" or _has_stopped(ticket):
        return []
    first = (ticket.seed_differences or ticket.differences)[0]
    changed = [one for one in ticket.decisions if one.changed]
    if not changed:
        return [(ticket.ticket_id, "", ticket.status, in_a_line(first))]
    what = ((one, f"{first.group}: {', '.join(one.changed)}") for one in changed)
    return [(_named(ticket, one), told(one.old), told(one.new), differs) for one, differs in what]


def _named(ticket: Compared, decision: Decision) -> str:
    return ticket.ticket_id if len(ticket.decisions) == 1 else f"{ticket.ticket_id} round {decision.round}"


def told(decision: Mapping[str, Any] | None) -> str:
    """A decision in a few words."""
    if decision is None:
        return "-"
    actions = " ".join(f"{action['kind']} {action['order_id']}" for action in decision["actions"] or ())
    return " ".join(filter(None, [decision["label"], decision["disposition"], actions]))


def in_words(decision: Mapping[str, Any] | None, name: str) -> str:
    """A field of a decision for people: "" where there is none."""
    value = (decision or {}).get(name)
    if name == "actions":
        return "\n".join(f"{one['kind']} {one['order_id']} {one['amount']} {one['currency']}" for one in value or ())
    return ", ".join(value) if isinstance(value, list) else str(value or "")
