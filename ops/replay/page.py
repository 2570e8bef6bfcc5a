"""A replay's report as one HTML file that needs nothing beside it: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from ops.replay.compare import Compared, Costs, Decision, Difference
from ops.replay.gold import GoldReport
from ops.replay.report import STATUSES, Report, begin_to_differ, in_a_line, in_words, told

_SHOWN = ("label", "disposition", "actions", "reply", "reason", "orders", "agent", "agent_version")
_OPEN_UP_TO = 3  # tickets that are not the same: more are closed until one looks
_SHORT_CHARS = 100
_WORDS = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")


def as_html(report: Report) -> str:
    """The whole page. Everything that anybody wrote is escaped."""
    return "\n".join(_page(report))


def _page(report: Report) -> Iterator[str]:
    style = resources.files("ops.replay").joinpath("page.css").read_text(encoding="utf-8")
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Replay: {escape(report.what)}</title><style>{style}{_filter_style()}</style></head><body>"
    yield f"<h1>Replay of {escape(report.what)}</h1><p>Decided by {escape(report.candidate)}.</p>"
    yield from _totals(report)
    yield from (f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings)
    if report.gold:
        yield from _gold(report.gold)
    yield from _where(report.tickets)
    yield "<h2>Tickets</h2>"
    yield from _filter(report)
    is_open = len(report.tickets) - report.totals["same"] <= _OPEN_UP_TO
    for ticket in report.tickets:
        yield from _ticket(ticket, is_open=is_open) if ticket.status != "same" else _same(ticket)
    yield "</body></html>"


# --- totals -----------------------------------------------------------------------------------------------


def _totals(report: Report) -> Iterator[str]:
    document = report.as_document()
    cost, took = document["cost_usd"], document["took_s"]
    shown = [status for status in STATUSES if report.totals[status] or status in ("same", "different")]
    yield _tiles([("tickets", len(report.tickets)), *((status, report.totals[status]) for status in shown)])
    yield (
        f"<p>{document['steps']} steps in {report.elapsed_s:.1f} s, which took {report.lived_s:.1f} s in life. "
        f"A ticket's answers took {_each(took['old'], report):.2f} s then and {_each(took['new'], report):.2f} s now. "
        f"All answers cost ${cost['old']:.4f} then and ${cost['new']:.4f} now{_live(document)}.</p>"
    )
    if report.unhandled or report.unreadable:
        yield (
            f"<p>{report.unhandled} records were not handled in life, {report.unreadable} cannot be read: "
            "they are not among the tickets.</p>"
        )


def _each(total: float, report: Report) -> float:
    return total / max(1, len(report.tickets))


def _live(document: Mapping[str, Any]) -> str:
    if not document["live_calls"]:
        return ""
    return f", of it ${document['cost_usd']['live']:.4f} paid in {document['live_calls']} live calls"


def _tiles(counts: Sequence[tuple[str, int]]) -> str:
    tiles = (f'<div class="tile {name if count else ""}"><b>{count}</b>{name}</div>' for name, count in counts)
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _gold(gold: GoldReport) -> Iterator[str]:
    yield f"<h2>Against gold</h2><p>{gold.right_before} of {gold.judged} tickets right then, {gold.right_now} now.</p>"
    yield _tiles([("regressions", len(gold.regressions)), ("improvements", len(gold.improvements))])
    for name, ids in (("Regressions", gold.regressions), ("Improvements", gold.improvements)):
        if ids:
            links = ", ".join(f'<a href="#{escape(one)}">{escape(one)}</a>' for one in ids)
            yield f"<p>{name}: {links}</p>"


def _where(tickets: Sequence[Compared]) -> Iterator[str]:
    if firsts := begin_to_differ(tickets):
        yield "<h2>Where they begin to differ</h2><table>"
        yield '<tr><th class="count">tickets</th><th>step: what differs</th></tr>'
        yield from (f'<tr><td class="count">{count}</td><td>{escape(step)}</td></tr>' for step, count in firsts)
        yield "</table>"


# --- which tickets are shown: no script, the style sheet asks which button is pressed -------------------------


def _filter_style() -> str:
    one_alone = (f"body:has(#only-{s}:checked) .ticket:not(.is-{s})" for s in STATUSES)
    return f"body:has(#only-changed:checked) .is-same, {', '.join(one_alone)} {{ display: none; }}"


def _filter(report: Report) -> Iterator[str]:
    changed = len(report.tickets) - report.totals["same"]
    chosen = "changed" if changed else "all"
    choices = [("changed", changed), ("all", len(report.tickets))]
    choices += [(status, report.totals[status]) for status in STATUSES if report.totals[status]]
    buttons = (
        f'<label><input type="radio" name="only" id="only-{name}"{" checked" if name == chosen else ""}> '
        f"{name} ({count})</label>"
        for name, count in choices
    )
    yield f'<div class="filter">Show {"".join(buttons)}</div>'


# --- a ticket ---------------------------------------------------------------------------------------------


def _same(ticket: Compared) -> Iterator[str]:
    name, last = escape(ticket.ticket_id), ticket.decisions[-1].new if ticket.decisions else None
    yield (
        f'<div class="ticket row plain is-same" id="{name}"><b>{name}</b> <span class="pill">same</span> '
        f"<span>{escape(told(last))}</span></div>"
    )


def _ticket(ticket: Compared, *, is_open: bool) -> Iterator[str]:
    name, status = escape(ticket.ticket_id), ticket.status
    yield f'<details class="ticket is-{status}" id="{name}"{" open" if is_open else ""}>'
    yield f'<summary class="row"><b>{name}</b> <span class="pill {status}">{status}</span> {_in_short(ticket)}'
    yield '</summary><div class="inside">'
    yield from (f"<p>{escape(why)}</p>" for why in (ticket.missing, ticket.problem) if why)
    if ticket.seed_differences:
        yield "<p>Before the window, so not the candidate's doing, it came out otherwise than in life:</p>"
        yield _steps(ticket.seed_differences)
    if ticket.differences:
        yield "<p>It differs from this step on:</p>"
        yield _steps(ticket.differences)
    for decision in ticket.decisions:
        yield from _decision(decision)
    yield f'<p class="soft">Then {_bill(ticket.old)}; now {_bill(ticket.new)}. Steps: {ticket.steps}.</p>'
    yield "</div></details>"


def _in_short(ticket: Compared) -> str:
    """The last decision that changed, then and now; else why there is none."""
    changed = [one for one in ticket.decisions if one.changed]
    if ticket.missing or ticket.problem or not changed:
        first = next(iter((*ticket.seed_differences, *ticket.differences)), None)
        why = ticket.missing or ticket.problem or (in_a_line(first) if first else "")
        return f"<span>{escape(textwrap.shorten(why, _SHORT_CHARS, placeholder=' …'))}</span>"
    old, new = (told(side) for side in (changed[-1].old, changed[-1].new))
    if old == new:
        new = f"{', '.join(changed[-1].changed)} changed"
    return f"<span>{escape(old)}</span> <span>→ {escape(new)}</span>"


def _bill(costs: Costs) -> str:
    answers = "1 answer" if costs.answers == 1 else f"{costs.answers} answers"
    return f"{answers}, ${costs.cost_usd:.4f}, {costs.took_s:.2f} s"


def _steps(differences: Iterable[Difference]) -> str:
    return f"<ol>{''.join(f'<li>{_step(one)}</li>' for one in differences)}</ol>"


def _step(difference: Difference) -> str:
    return escape(in_a_line(difference))


def _decision(decision: Decision) -> Iterator[str]:
    if not decision.changed:
        yield f"<p>Round {decision.round} is the same: {escape(told(decision.new))}.</p>"
        return
    yield f'<table class="fixed"><tr><th>round {decision.round}</th><th>then</th><th>now</th></tr>'
    for name in _SHOWN:
        old, new = (in_words(side, name) for side in (decision.old, decision.new))
        if old or new:
            changed = ' class="changed"' if old != new else ""
            before, now = marked(old, new)
            yield f"<tr{changed}><td>{name}</td><td>{before}</td><td>{now}</td></tr>"
    yield "</table>"


def marked(old: str, new: str) -> tuple[str, str]:
    """Both as HTML, the words that only one of them has marked."""
    before, now = _WORDS.findall(old), _WORDS.findall(new)
    matches = difflib.SequenceMatcher(None, before, now, autojunk=False)
    left, right = list[str](), list[str]()
    for kind, i, j, k, m in matches.get_opcodes():
        gone, come = escape("".join(before[i:j])), escape("".join(now[k:m]))
        left.append(gone if kind == "equal" or not gone else f"<del>{gone}</del>")
        right.append(come if kind == "equal" or not come else f"<ins>{come}</ins>")
    return "".join(left), "".join(right)
