"""Deciding anew: rounds that an agent has decided are given back to it, as a person would, under new event ids.

Taking events out of the inbox would not do it: an agent looks at the ticket, and leaves alone what it decided.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from bus.codec import Codec
from bus.outgoing import outgoing_of
from contracts.errors import Permanent, SupportError, Undecodable, VersionConflict
from contracts.events import CustomerReplied, Event, RoundReopened, TicketSubmitted, caused_id
from contracts.ports import Position, Record, Settlement, TicketStore, Wanted
from contracts.ticket import Desk, Round, Signature, Ticket, decide_anew
from contracts.topics import Topic
from contracts.values import Disposition

DESKS: Mapping[str, Desk] = MappingProxyType(
    {"triage": Desk.TRIAGE, "lookup": Desk.LOOKUP, "reasoning": Desk.REASONING}
)
"""The agents that decide, and their desks. Effects carries out and review obeys people: neither decides anything."""

_BY = Signature("rewind", "1")
_NOBODY = ""  # whichever worker takes them over publishes the handoffs
_AT_ONCE = 500  # records in one look-up
_TRIES = 10  # with a ticket that moves on at the same moment


class Fate(StrEnum):
    """What becomes of a round that the agent has handled."""

    AGAIN = "again"  # it is decided anew
    OPEN = "open"  # nothing: it is being decided, or its ticket is parked
    ACTED = "acted"  # nothing: an action was carried out, which stays done
    PERSON = "person"  # nothing: a person has it, or had
    FOLLOWED = "followed"  # nothing: the customer was asked something, answers something, or has written since


def fate_of(ticket: Ticket, round_: Round) -> Fate:
    """Whether a round may be decided anew: its last word was the agents' alone, and nothing came of it but words."""
    if round_.is_open:
        return Fate.OPEN
    if round_.actions:
        return Fate.ACTED
    if round_.person is not None or round_.waits_for_a_person:
        return Fate.PERSON
    answers = round_.label is not None and round_.confidence is None
    asks = round_.disposition is Disposition.NEEDS_CUSTOMER
    return Fate.FOLLOWED if answers or asks or round_.number < len(ticket.rounds) else Fate.AGAIN


class _Handled(NamedTuple):
    """A round that the agent has handled, and the record that was about it."""

    position: Position
    ticket: Ticket
    round: Round
    fate: Fate


@dataclass(frozen=True, slots=True)
class Anew:
    """Gives the rounds that a group's records are about back to the group's agent, each once."""

    group: str
    topic: Topic
    tickets: TicketStore
    codec: Codec

    async def counted(self, records: AsyncIterator[Record]) -> Mapping[str, int]:
        """What would become of the rounds; nothing is changed."""
        return dict(Counter([str(one.fate) async for batch in self._handled(records) for one in batch]))

    async def given_back(self, records: AsyncIterator[Record], number: int) -> Mapping[str, int]:
        """Give back those that can be; returns what became of all.

        `number` is the rewind's: what was given back under it before is not given back again.
        Raises StoreUnavailable: some were given back.
        """
        counts = Counter[str]()
        async for batch in self._handled(records):
            counts.update(str(one.fate) for one in batch if one.fate is not Fate.AGAIN)
            counts.update(await self._given_back([one for one in batch if one.fate is Fate.AGAIN], number))
        return dict(counts)

    async def _given_back(self, rounds: Sequence[_Handled], number: int) -> Sequence[str]:
        fates: list[str] = []
        for _ in range(_TRIES):
            results = await self.tickets.settle([self._reopening(one, number) for one in rounds], _NOBODY)
            lost = [one for one, result in zip(rounds, results, strict=True) if isinstance(result, VersionConflict)]
            if failed := [one for one in results if isinstance(one, Permanent)]:
                raise failed[0]
            fates += [Fate.AGAIN] * (len(rounds) - len(lost))
            looked_at = [await self._looked_at_again(one) for one in lost]
            fates += [one.fate for one in looked_at if one.fate is not Fate.AGAIN]
            rounds = [one for one in looked_at if one.fate is Fate.AGAIN]
            if not rounds:
                return fates
        return [*fates, *[Fate.OPEN for _ in rounds]]

    def _reopening(self, one: _Handled, number: int) -> Settlement:
        ticket = one.ticket
        event = Event(
            id=caused_id(one.round.event_id, _BY.agent, number),
            source=f"urn:switchyard:{_BY.agent}",
            time=datetime.now(UTC),
            data=RoundReopened(ticket_id=ticket.ticket_id, tenant_id=ticket.tenant_id, round=one.round.number),
            causation_id=one.round.event_id,
        )
        step = decide_anew(ticket, one.round, DESKS[self.group])
        return Settlement(_BY.agent, event, one.position, step.ticket, outgoing_of(step, event, _BY))

    async def _looked_at_again(self, one: _Handled) -> _Handled:
        ticket = await self.tickets.load(one.ticket.ticket_id) or one.ticket
        round_ = ticket.round(one.round.number)
        return one._replace(ticket=ticket, round=round_, fate=fate_of(ticket, round_))

    async def _handled(self, records: AsyncIterator[Record]) -> AsyncIterator[Sequence[_Handled]]:
        """The rounds of events that the inbox knows, each once, many at a time."""
        seen = set[tuple[str, int]]()
        async for batch in in_batches(records):
            found = [
                one for one in await self._looked_up(batch) if (one.ticket.ticket_id, one.round.number) not in seen
            ]
            rounds = {(one.ticket.ticket_id, one.round.number): one for one in found}
            seen |= rounds.keys()
            yield list(rounds.values())

    async def _looked_up(self, records: Sequence[Record]) -> Sequence[_Handled]:
        read = [(record, event) for record in records if (event := self._event_in(record)) is not None]
        known = await self.tickets.look_up(self.group, [Wanted(event.id, event.ticket_id) for _, event in read])
        found = []
        for record, event in read:
            ticket = known.tickets.get(event.ticket_id)
            round_ = _round_of(ticket, event) if ticket and event.id in known.handled else None
            if ticket and round_:
                fate = Fate.OPEN if event.ticket_id in known.parked else fate_of(ticket, round_)
                found.append(_Handled(Position(record.topic, record.partition, record.offset), ticket, round_, fate))
        return found

    def _event_in(self, record: Record) -> Event | None:
        try:
            return self.codec.decode(self.topic, record)
        except Undecodable:
            return None


async def in_batches(records: AsyncIterator[Record]) -> AsyncIterator[Sequence[Record]]:
    """Records, so many as fit in one look-up at a time."""
    batch: list[Record] = []
    async for record in records:
        batch.append(record)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def require_decides(group: str) -> None:
    """Raises SupportError: the agent decides nothing that could be decided anew."""
    if group not in DESKS:
        raise SupportError(f"{group} decides nothing anew: what it did stays done; `--again` is for {', '.join(DESKS)}")


def _round_of(ticket: Ticket, event: Event) -> Round | None:
    """The round an event opened or is about; None: it repeated what had been submitted before."""
    if isinstance(event.data, TicketSubmitted | CustomerReplied):
        return next((round_ for round_ in ticket.rounds if round_.event_id == event.id), None)
    return next((round_ for round_ in ticket.rounds if round_.number == getattr(event.data, "round", 0)), None)
