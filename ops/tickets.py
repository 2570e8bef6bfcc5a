"""A ticket's story as lines for a terminal."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ops.service.tickets import Story
from state import timeline
from state.chronicle import DEAD_LETTER, JOB, MODEL, PARKED, Waits

_Detail = Mapping[str, Any]


def as_text(story: Story) -> str:
    """The ticket, what it waits for, its rounds and its timeline; a step's line begins with its number."""
    return "\n".join(_lines(story))


def _lines(story: Story) -> Iterator[str]:
    ticket = story.ticket
    yield f"{ticket.ticket_id}  {ticket.status}  version {ticket.version}  tenant {ticket.tenant_id}"
    for one in story.waits:
        yield f"  {_waiting(one)}"
    for round_ in ticket.rounds:
        came = f"{round_.label or '-'}, {round_.disposition or round_.desk}, {round_.settled_by or '-'}"
        yield f"  round {round_.number}: {came}, ${round_.cost_usd:.6f}"
    traces = {moment.detail["trace_id"]: None for moment in story.moments if moment.detail.get("trace_id")}
    names = {trace_id: f"[{nth}]" if len(traces) > 1 else "" for nth, trace_id in enumerate(traces, 1)}
    for trace_id, name in names.items():
        yield f"  trace {trace_id} {name}".rstrip()
    yield "timeline (UTC; the numbers are those of --replay-from):"
    day = None
    for moment in story.moments:
        if moment.at.date() != day:
            day = moment.at.date()
            yield f"  {day}"
        number = "" if moment.step is None else str(moment.step)
        line = f"{_TOLD[moment.what](moment.detail)} {names.get(moment.detail.get('trace_id'), '')}".rstrip()
        yield f"  {number:>3}  {moment.at:%H:%M:%S.%f}  {'' if moment.step else '  '}{line}"


def _waiting(one: Waits) -> str:
    behind = f", {one.behind} behind it" if one.behind else ""
    place = f"{one.topic}/{one.partition}@{one.offset}{behind}: {one.error}"
    if one.due_at is None:
        return f"blocked in {one.group} by a dead letter, {place} (`switchyard dlt redrive {one.group}`)"
    return f"parked in {one.group} until {one.due_at}, {place}"


def _place(detail: _Detail) -> str:
    if detail.get("offset") is None:
        return f"{detail['topic']}, not published yet"
    return f"{detail['topic']}/{detail['partition']}@{detail['offset']}"


def _handled(detail: _Detail) -> str:
    return f"{detail['group']} handled {detail['type']}  {_place(detail)}  version {detail['version']}"


def _emitted(detail: _Detail) -> str:
    return f"{detail['group']} emitted {detail['type']}  {_place(detail)}"


def _effect(detail: _Detail) -> str:
    order = f" of {detail['order_id']}" if detail["order_id"] else ""
    amount = f", {detail['amount']} moved" if detail["amount"] else ""
    return f"effect {detail['kind']}{order}{amount}  key {detail['effect_key']}"


def _person(detail: _Detail) -> str:
    to = f" to {detail['to']}" if detail["to"] else ""
    note = f': "{detail["note"]}"' if detail["note"] else ""
    return f"person {detail['decided_by']} decided {detail['decision']}{to} on round {detail['round']}{note}"


def _model(detail: _Detail) -> str:
    came = f"{detail['outcome'] or 'under way'}, {detail['took_s']:.2f} s"
    tokens = f"{detail['input_tokens']} + {detail['output_tokens']} tokens, ${detail['cost_usd']:.6f}"
    asked = f"{detail['provider']}:{detail['model']} ({detail['tier']}) for {detail['purpose']}"
    return f"{detail['group']} asked {asked}: {came}, {tokens}"


def _failed(detail: _Detail) -> str:
    tries = "1 try" if detail["attempts"] == 1 else f"{detail['attempts']} tries"
    became = f"parked until {detail['until']}" if detail["until"] else "became a dead letter"
    return f"{detail['group']} failed after {tries}, {became}  {_place(detail)}: {detail['error']}"


def _job(detail: _Detail) -> str:
    return f"{detail['by']}: {detail['act']} by job {detail['job_id']}, {detail['fate']}  {_place(detail)}"


_TOLD: Mapping[str, Callable[[_Detail], str]] = MappingProxyType(
    {
        timeline.HANDLED: _handled,
        timeline.EMITTED: _emitted,
        timeline.EFFECT: _effect,
        timeline.PERSON: _person,
        MODEL: _model,
        PARKED: _failed,
        DEAD_LETTER: _failed,
        JOB: _job,
    }
)
