"""The judges. They know what was accepted and what lies outside the system afterwards, and nothing of its inside.

I1 every accepted event reaches its one end · I2 each effect once · I3 in order within a ticket · I4 no committed
offset passes an unfinished record · I5 nothing lost from outbox and dead letters · I6 at rest again in time, unaided ·
P what is in the journal is not bought again · R what is settled is not handled again · E no worker ends by itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from contracts.ticket import TIMED_OUT_REPLY
from tests.drill.load import ANSWERED, BEHIND, EITHER, IGNORED, LETTER, TIMED_OUT
from tests.drill.script import reply_to


class Place(NamedTuple):
    """Where a record stands. `generation` tells a topic from the one of that name that was deleted."""

    topic: str
    partition: int
    offset: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A record that Kafka acknowledged to its producer; the n-th of its ticket. `event` is "" for poison."""

    event: str
    ticket: str
    ends: str
    place: Place
    nth: int = 0
    question: str = ""


@dataclass(frozen=True, slots=True)
class Emitted:
    """A record that the system published, in the topic's order. `key` is the effect's; "" for an outcome."""

    event: str
    cause: str
    type: str
    ticket: str
    round: int
    place: Place
    key: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """One try to carry an effect out, in the order of time. The world knows the key and does it once."""

    key: str
    ticket: str
    round: int
    text: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and the record it was."""

    group: str
    of: Place
    at: float  # by the broker's clock


@dataclass(frozen=True, slots=True)
class Logged:
    """A record that a group had to read. `event` is "" for poison."""

    group: str
    place: Place
    event: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What a group had committed for a partition at a time: the next offset to be read."""

    at: float
    group: str
    next: Place


@dataclass(frozen=True, slots=True)
class Bought:
    """A paid call. `recalled_at`: when the journal was asked before it."""

    event: str
    recalled_at: float | None


@dataclass(frozen=True, slots=True)
class Begun:
    """A handler that ran. `looked_up_at`: when the inbox was asked before it."""

    group: str
    event: str
    looked_up_at: float | None


@dataclass
class Evidence:
    """What a run left behind."""

    accepted: Sequence[Accepted] = ()
    outcomes: Sequence[Emitted] = ()
    commands: Sequence[Emitted] = ()
    effects: Sequence[Effect] = ()
    effects_kept: frozenset[str] = frozenset()  # keys in the shop's own table
    letters: Sequence[Letter] = ()
    waiting: frozenset[Place] = frozenset()  # records in the queues behind dead letters
    logged: Sequence[Logged] = ()
    samples: Sequence[Sample] = ()
    finished_events: Mapping[tuple[str, str], float] = field(default_factory=dict)  # (group, event): first seen done
    finished_places: Mapping[tuple[str, Place], float] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()  # ids of events that were stored to be published
    published: frozenset[str] = frozenset()  # ids of events on topics
    unpublished: int = 0  # rows the outbox still holds
    bought: Sequence[Bought] = ()
    kept: Mapping[str, float] = field(default_factory=dict)  # event: when its answer was in the journal
    begun: Sequence[Begun] = ()
    recovery_s: float | None = 0.0  # None: it never came to rest
    limit_s: float = 60.0
    why_not_at_rest: str = ""
    ended: Sequence[str] = ()  # workers that ended by themselves
    order_of_messages: bool = True  # False: a ticket's records lay in several partitions

    @cached_property
    def outcomes_of(self) -> Mapping[str, list[Emitted]]:
        """The outcomes that an event led to, each once."""
        found: dict[str, dict[str, Emitted]] = defaultdict(dict)
        for outcome in self.outcomes:
            found[outcome.cause].setdefault(outcome.event, outcome)
        return {cause: list(outcomes.values()) for cause, outcomes in found.items()}

    @cached_property
    def expected(self) -> Mapping[str, Accepted]:
        """What was accepted, by event, without duplicates and poison."""
        return {a.event: a for a in self.accepted if a.event and a.ends != IGNORED}


@dataclass(frozen=True, slots=True)
class Violation:
    """A law that was broken, and by what."""

    law: str
    what: str


def judge(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong."""
    return [
        violation
        for oracle in (
            every_accepted_event_reaches_its_end,
            each_effect_happens_once,
            a_ticket_keeps_its_order,
            no_commit_passes_an_unfinished_record,
            nothing_stored_is_lost,
            it_comes_to_rest,
            nothing_in_the_journal_is_bought_again,
            nothing_settled_is_handled_again,
            no_worker_ends_by_itself,
        )
        for violation in oracle(evidence)
    ]


_KINDS = {
    ANSWERED: {"TicketResolved"},
    TIMED_OUT: {"TicketTimedOut"},
    EITHER: {"TicketResolved", "TicketTimedOut"},
    LETTER: set(),
    BEHIND: set(),
}


def every_accepted_event_reaches_its_end(evidence: Evidence) -> Iterator[Violation]:
    """I1."""
    letters = {letter.of for letter in evidence.letters}
    for accepted in evidence.accepted:
        if accepted.ends == LETTER and accepted.place not in letters:
            yield Violation("I1", f"no dead letter of {_told(accepted)}")
        if accepted.ends == BEHIND and accepted.place not in evidence.waiting:
            yield Violation("I1", f"not in the queue behind a dead letter: {_told(accepted)}")
    for event, accepted in evidence.expected.items():
        kinds = {outcome.type for outcome in evidence.outcomes_of.get(event, ())}
        wanted = _KINDS[accepted.ends]
        if not kinds and wanted:
            yield Violation("I1", f"lost: no outcome of {_told(accepted)}")
        elif not kinds <= wanted:
            yield Violation("I1", f"ended as {sorted(kinds)}, not as {accepted.ends}: {_told(accepted)}")
    meant = {a.place for a in evidence.accepted if a.ends == LETTER}
    for letter in evidence.letters:
        if letter.of not in meant:
            yield Violation("I1", f"a dead letter of a sound record, by {letter.group}: {_at(letter.of)}")


def each_effect_happens_once(evidence: Evidence) -> Iterator[Violation]:
    """I2."""
    for event, outcomes in evidence.outcomes_of.items():
        if len(outcomes) > 1:
            yield Violation("I2", f"{len(outcomes)} outcomes of {event}")
        if event not in evidence.expected:
            yield Violation("I2", f"an outcome of what nobody asked: {event}")
    rounds = {(o.ticket, o.round): event for event, outcomes in evidence.outcomes_of.items() for o in outcomes}
    applied = {effect.key: effect for effect in evidence.effects}
    yield from _each_round_has_one_key(applied.values())
    yield from _keys_agree(applied.keys(), {c.key for c in evidence.commands}, "commanded")
    yield from _keys_agree(applied.keys(), evidence.effects_kept, "in the shop's table")
    done = {(effect.ticket, effect.round) for effect in applied.values()}
    for ticket, round_ in sorted(rounds.keys() - done):
        yield Violation("I2", f"no effect of round {round_} of {ticket}")
    for effect in evidence.effects:
        event = rounds.get((effect.ticket, effect.round), "")
        accepted = evidence.expected.get(event)
        if accepted is None:
            yield Violation("I2", f"an effect that nobody asked for: round {effect.round} of {effect.ticket}")
        elif effect.text not in (reply_to(event, accepted.question), TIMED_OUT_REPLY):
            yield Violation("I2", f"the wrong reply to {event}: {effect.text!r}")


def _each_round_has_one_key(effects: Iterable[Effect]) -> Iterator[Violation]:
    keys = Counter((effect.ticket, effect.round) for effect in effects)
    for (ticket, round_), count in keys.items():
        if count > 1:
            yield Violation("I2", f"{count} effects of round {round_} of {ticket}")


def _keys_agree(applied: Iterable[str], others: Iterable[str], what: str) -> Iterator[Violation]:
    for key in sorted(set(applied) - set(others)):
        yield Violation("I2", f"applied and not {what}: {key}")
    for key in sorted(set(others) - set(applied)):
        yield Violation("I2", f"{what} and not applied: {key}")


def a_ticket_keeps_its_order(evidence: Evidence) -> Iterator[Violation]:
    """I3."""
    outcomes = [o for o in _once(evidence.outcomes) if o.round]
    yield from _rising("outcomes", ((o.ticket, o.round) for o in outcomes))
    yield from _rising("commands", ((c.ticket, c.round) for c in _once(evidence.commands)))
    first_tries = {effect.key: effect for effect in reversed(evidence.effects)}
    in_time = [effect for effect in evidence.effects if first_tries[effect.key] is effect]
    yield from _rising("effects", ((e.ticket, e.round) for e in in_time))
    if evidence.order_of_messages:
        places = ((o.ticket, evidence.expected[o.cause].nth) for o in outcomes if o.cause in evidence.expected)
        yield from _rising("answers to messages", places)


def _once(emitted: Iterable[Emitted]) -> list[Emitted]:
    """Each event at its first appearance."""
    first: dict[str, Emitted] = {}
    for one in emitted:
        first.setdefault(one.event, one)
    return list(first.values())


def _rising(what: str, numbered: Iterable[tuple[str, int]]) -> Iterator[Violation]:
    last: dict[str, int] = {}
    for ticket, number in numbered:
        if number < last.get(ticket, -1):
            yield Violation("I3", f"{what} of {ticket}: {number} came after {last[ticket]}")
        last[ticket] = max(number, last.get(ticket, -1))


def no_commit_passes_an_unfinished_record(evidence: Evidence) -> Iterator[Violation]:
    """I4."""
    last_first = sorted(evidence.letters, key=lambda letter: letter.at, reverse=True)
    letters = {(letter.group, letter.of): letter.at for letter in last_first}  # a replay writes another
    ends: dict[tuple[str, str, int, int], list[tuple[int, float, str]]] = defaultdict(list)
    for record in evidence.logged:
        place, group = record.place, record.group
        known = (
            evidence.finished_events.get((group, record.event)) if record.event else None,
            evidence.finished_places.get((group, place)),
            letters.get((group, place)),
        )
        done_at = min((at for at in known if at is not None), default=float("inf"))
        ends[group, *_partition(place)].append((place.offset, done_at, record.event))
    told = set()
    for sample in evidence.samples:
        for offset, done_at, event in ends[sample.group, *_partition(sample.next)]:
            if offset < sample.next.offset and done_at > sample.at and (sample.group, event, offset) not in told:
                told.add((sample.group, event, offset))
                late = "never" if done_at == float("inf") else f"{done_at - sample.at:.3f} s later"
                place = _at(sample.next._replace(offset=offset))
                yield Violation("I4", f"{sample.group} committed past {place} ({event or 'poison'}), finished {late}")


def _partition(place: Place) -> tuple[str, int, int]:
    return place.topic, place.partition, place.generation


def nothing_stored_is_lost(evidence: Evidence) -> Iterator[Violation]:
    """I5."""
    if evidence.unpublished:
        yield Violation("I5", f"the outbox still holds {evidence.unpublished} rows")
    for event in sorted(evidence.stored - evidence.published):
        yield Violation("I5", f"stored and on no topic: {event}")


def it_comes_to_rest(evidence: Evidence) -> Iterator[Violation]:
    """I6."""
    if evidence.recovery_s is None:
        yield Violation(
            "I6", f"not at rest, and nothing settled for {evidence.limit_s:g} s: {evidence.why_not_at_rest}"
        )


def nothing_in_the_journal_is_bought_again(evidence: Evidence) -> Iterator[Violation]:
    """P."""
    for bought in evidence.bought:
        kept_at = evidence.kept.get(bought.event)
        if kept_at is not None and bought.recalled_at is not None and bought.recalled_at > kept_at:
            yield Violation("P", f"bought again {bought.recalled_at - kept_at:.3f} s after it was kept: {bought.event}")


def nothing_settled_is_handled_again(evidence: Evidence) -> Iterator[Violation]:
    """R."""
    for begun in evidence.begun:
        done_at = evidence.finished_events.get((begun.group, begun.event))
        if done_at is not None and begun.looked_up_at is not None and begun.looked_up_at > done_at:
            yield Violation(
                "R", f"{begun.group} handled {begun.event} again, {begun.looked_up_at - done_at:.3f} s late"
            )


def no_worker_ends_by_itself(evidence: Evidence) -> Iterator[Violation]:
    """E."""
    for how in evidence.ended:
        yield Violation("E", how)


def _told(accepted: Accepted) -> str:
    return f"{accepted.event or 'poison'} at {_at(accepted.place)}"


def _at(place: Place) -> str:
    return f"{place.topic}[{place.partition}]@{place.offset}"
