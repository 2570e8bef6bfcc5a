"""One ticket for whoever asks: its state, what it waits for, and its timeline in one order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from contracts.errors import SupportError
from contracts.ports import TimelineEntry
from contracts.ticket import Ticket
from ops.settings import Settings
from ops.wiring import database
from state import timeline
from state.chronicle import PostgresChronicle, Waits
from state.past import PastStep, PostgresPast
from state.postgres_tickets import PostgresTickets


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. A step stands at its begin; `step` is the number that a replay can begin at."""

    at: datetime
    what: str  # handled | emitted | effect | person | model | parked | dead letter | job
    detail: Mapping[str, Any]
    step: int | None = None

    def as_document(self) -> dict[str, Any]:
        """As JSON values."""
        numbered = {} if self.step is None else {"step": self.step}
        return {"at": self.at.isoformat(), "what": self.what, **numbered, **self.detail}


@dataclass(frozen=True, slots=True)
class Story:
    """A ticket and all that is known of its past, oldest first."""

    ticket: Ticket
    waits: Sequence[Waits]
    moments: Sequence[Moment]

    def as_document(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "ticket": self.ticket.model_dump(mode="json") | {"status": self.ticket.status},
            "version": self.ticket.version,
            "waits": [asdict(one) for one in self.waits],
            "timeline": [moment.as_document() for moment in self.moments],
        }


async def read_story(ticket_id: str, settings: Settings) -> Story:
    """What is known of a ticket. Raises SupportError: there is no such ticket."""
    async with database(settings) as pool:
        life = (await PostgresPast(pool).lives([ticket_id])).get(ticket_id)
        entries = await PostgresTickets(pool).timeline(ticket_id)
        chronicle = PostgresChronicle(pool)
        further, waits = await chronicle.entries(ticket_id), await chronicle.waits(ticket_id)
    if life is None and not further:
        raise SupportError(f"there is no ticket {ticket_id!r} (its record may still wait in support.tickets.v1)")
    ticket = life.ticket if life else Ticket(ticket_id=ticket_id, tenant_id="-")  # its first record failed
    return Story(ticket, waits, in_one_order(life.steps if life else (), entries, further))


def in_one_order(
    steps: Sequence[PastStep], entries: Sequence[TimelineEntry], further: Sequence[TimelineEntry]
) -> Sequence[Moment]:
    """Everything by time: a step at its begin with its number, what it asked models, then what came of it."""
    numbers = {step.key: number for number, step in enumerate(steps, 1)}
    traces = _traces(entries)
    moments = [*_moments(steps, numbers, entries), *(Moment(one.at, one.what, one.detail) for one in further)]
    traced = [_with_trace(moment, traces) for moment in moments]
    # A step stands before what it did at the same moment.
    return sorted(traced, key=lambda one: (one.at, one.what != timeline.HANDLED, one.step or 0))


def _moments(
    steps: Sequence[PastStep], numbers: Mapping[tuple[str, str], int], entries: Sequence[TimelineEntry]
) -> Iterator[Moment]:
    for entry in entries:
        number = None
        if entry.what == timeline.HANDLED:
            number = numbers.get((entry.detail["group"], entry.detail["event_id"]))
        if number is None:
            yield Moment(entry.at, entry.what, entry.detail)
        else:
            detail = {**entry.detail, "settled_at": entry.at.isoformat()}
            yield Moment(steps[number - 1].began, entry.what, detail, number)


def _traces(entries: Sequence[TimelineEntry]) -> Mapping[str, str]:
    """The trace that each event belongs to, by its id: as its record said, else that of what came with it."""
    known: dict[str, str] = {}
    for entry in entries:
        if entry.what == timeline.HANDLED and entry.detail.get("traceparent"):
            known[entry.detail["event_id"]] = entry.detail["traceparent"].split("-")[1]
    emitted = [entry.detail for entry in entries if entry.what == timeline.EMITTED]
    of_cause = {one["caused_by"]: known[one["event_id"]] for one in emitted if one["event_id"] in known}
    for one in emitted:
        if found := of_cause.get(one["caused_by"]) or known.get(one["caused_by"]):
            known.setdefault(one["event_id"], found)
            known.setdefault(one["caused_by"], found)
    return known


def _with_trace(moment: Moment, traces: Mapping[str, str]) -> Moment:
    event_id = moment.detail.get("event_id")
    if event_id is None:
        return moment
    return Moment(moment.at, moment.what, {**moment.detail, "trace_id": traces.get(event_id)}, moment.step)
