"""A replay's report as one HTML file that needs nothing beside it: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from ops.replay.compare import Compared, Decision, Difference
from ops.replay.report import STATUSES, Report, reply_diff, told

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 0; display: inline; }
.totals span { display: inline-block; margin-right: 1.2rem; } .totals b { font-size: 1.3rem; margin-right: .3rem; }
details { border: 1px solid #d5dbe3; border-radius: 6px; margin: .6rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; } .status { padding: .05rem .5rem; border-radius: 9px; background: #e8ecf1; }
.different { background: #fdeccb; } .missing, .failed, .unseeded { background: #f9d5d5; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; table-layout: fixed; }
td, th { border: 1px solid #d5dbe3; padding: .3rem .5rem; text-align: left; vertical-align: top;
         white-space: pre-wrap; overflow-wrap: anywhere; }
th:first-child { width: 8rem; } tr.changed td { background: #fffaf0; }
.diff { font: 12px/1.5 ui-monospace, monospace; white-space: pre-wrap; } .add { background: #dcf3e1; }
.del { background: #fbdfdf; } footer { color: #667; margin-top: 2rem; }
"""
_SHOWN = ("label", "disposition", "actions", "reply", "reason", "orders", "agent", "agent_version")


def as_html(report: Report) -> str:
    """The whole page. Everything that anybody wrote is escaped."""
    return "\n".join(_page(report))


def _page(report: Report) -> Iterator[str]:
    document = report.as_document()
    cost = document["cost_usd"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>Replay: {escape(report.what)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(report.what)}: {escape(report.candidate)}</h1>"
    counts = "".join(f"<span><b>{report.totals[s]}</b>{s}</span>" for s in STATUSES if report.totals[s])
    yield f'<p class="totals">{counts or "no tickets"}</p>'
    yield (
        f"<p>{len(report.tickets)} tickets, {document['steps']} steps in {report.elapsed_s:.1f} s "
        f"({report.lived_s:.1f} s in life). Answers: ${cost['old']:.4f} then, ${cost['new']:.4f} now, "
        f"${cost['live']:.4f} of it paid in {document['live_calls']} live calls. "
        f"{report.unhandled} records were not handled in life, {report.unreadable} cannot be read.</p>"
    )
    yield from (f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in report.warnings)
    if gold := report.gold:
        yield f"<p>Gold: {gold.right_before} of {gold.judged} right before, {gold.right_now} now.</p>"
        yield f"<p>Regressions: {escape(', '.join(gold.regressions)) or 'none'}.</p>"
        yield f"<p>Improvements: {escape(', '.join(gold.improvements)) or 'none'}.</p>"
    for ticket in report.tickets:
        if ticket.status != "same":
            yield from _ticket(ticket)
    same = [ticket.ticket_id for ticket in report.tickets if ticket.status == "same"]
    yield f"<details><summary>{len(same)} tickets came out the same</summary><p>{escape(', '.join(same))}</p></details>"
    yield "</body></html>"


def _ticket(ticket: Compared) -> Iterator[str]:
    yield f"<details open><summary><h2>{escape(ticket.ticket_id)}</h2> "
    yield f'<span class="status {ticket.status}">{ticket.status}</span></summary>'
    yield from (f"<p>{escape(why)}</p>" for why in (ticket.missing, ticket.problem) if why)
    if ticket.seed_differences:
        yield "<p>The state that the ticket had could not be had again:</p>"
        yield _steps(ticket.seed_differences)
    if ticket.differences:
        yield "<p>From which step on, and what:</p>"
        yield _steps(ticket.differences)
    for decision in ticket.decisions:
        yield from _decision(decision)
    yield (
        f"<p>{ticket.old.answers} answers, ${ticket.old.cost_usd:.4f}, {ticket.old.took_s:.2f} s then; "
        f"{ticket.new.answers}, ${ticket.new.cost_usd:.4f}, {ticket.new.took_s:.2f} s now.</p></details>"
    )


def _steps(differences: tuple[Difference, ...]) -> str:
    rows = (f"<li>{escape(d.group)} on {escape(d.type)}: {escape(', '.join(d.what))}</li>" for d in differences)
    return f"<ol>{''.join(rows)}</ol>"


def _decision(decision: Decision) -> Iterator[str]:
    yield f"<table><tr><th>round {decision.round}</th><th>old: {escape(told(decision.old))}</th>"
    yield f"<th>new: {escape(told(decision.new))}</th></tr>"
    for name in _SHOWN:
        changed = ' class="changed"' if name in decision.changed else ""
        cells = "".join(f"<td>{_cell(side, name)}</td>" for side in (decision.old, decision.new))
        yield f"<tr{changed}><td>{name}</td>{cells}</tr>"
    yield "</table>"
    if lines := reply_diff(decision):
        yield f'<div class="diff">{"".join(map(_line, lines))}</div>'


def _cell(side: Mapping[str, Any] | None, name: str) -> str:
    value = side.get(name) if side else None
    return escape(value if isinstance(value, str) else "" if not value else str(value))


def _line(line: str) -> str:
    kind = {"+": "add", "-": "del"}.get(line[:1], "")
    return f'<div class="{kind}">{escape(line)}</div>'
