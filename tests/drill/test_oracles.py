"""The judges, shown doctored ledgers: each must see its own law broken, and nothing where all is well."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts.ticket import TIMED_OUT_REPLY
from tests.drill.load import ANSWERED, BEHIND, EITHER, IGNORED, LETTER, TIMED_OUT
from tests.drill.oracles import (
    Accepted,
    Begun,
    Bought,
    Effect,
    Emitted,
    Evidence,
    Letter,
    Logged,
    Place,
    Sample,
    judge,
)
from tests.drill.script import reply_to

TOPIC = "tickets"
ASKER, CARRIER = "asker", "carrier"
DONE_AT = 10.0


def place(offset: int, topic: str = TOPIC) -> Place:
    return Place(topic, 0, offset)


def outcome(event: str, ticket: str, round_: int, type_: str = "TicketResolved") -> Emitted:
    return Emitted(f"o-{event}", event, type_, ticket, round_, place(round_, "outcomes"))


def command(event: str, ticket: str, round_: int) -> Emitted:
    key = f"{ticket}/{round_}"
    return Emitted(f"c-{event}", event, "SendReply", ticket, round_, place(round_, "effects"), key)


def effect(event: str, ticket: str, round_: int, text: str | None = None) -> Effect:
    return Effect(f"{ticket}/{round_}", ticket, round_, text or reply_to(event, f"q-{event}"))


def accepted(event: str, ticket: str, offset: int, ends: str = ANSWERED, nth: int = 0) -> Accepted:
    return Accepted(event, ticket, ends, place(offset), nth, f"q-{event}")


def sound() -> Evidence:
    """A ticket of two rounds, a late one, a dead letter with one behind it, a duplicate; all of it as it should be."""
    return Evidence(
        accepted=[
            accepted("e1", "t", 0),
            accepted("e2", "t", 1, nth=1),
            accepted("e3", "late", 2, TIMED_OUT),
            accepted("e4", "cursed", 3, LETTER),
            accepted("e5", "cursed", 4, BEHIND, nth=1),
            accepted("e1", "t", 5, IGNORED, nth=2),
            accepted("", "poison", 6, LETTER),
            accepted("e6", "either", 7, EITHER),
        ],
        outcomes=[
            outcome("e1", "t", 1),
            outcome("e2", "t", 2),
            outcome("e3", "late", 1, "TicketTimedOut"),
            outcome("e6", "either", 1),
        ],
        commands=[
            command("e1", "t", 1),
            command("e2", "t", 2),
            command("e3", "late", 1),
            command("e6", "either", 1),
        ],
        effects=[
            effect("e1", "t", 1),
            effect("e2", "t", 2),
            effect("e3", "late", 1, TIMED_OUT_REPLY),
            effect("e6", "either", 1),
        ],
        effects_kept=frozenset({"t/1", "t/2", "late/1", "either/1"}),
        letters=[Letter(ASKER, place(3), DONE_AT), Letter(ASKER, place(6), DONE_AT)],
        waiting=frozenset({place(4)}),
        logged=[Logged(ASKER, place(n), event) for n, event in enumerate(["e1", "e2", "e3", "e4", "e5", "e1", ""])],
        samples=[Sample(DONE_AT + 1, ASKER, place(7))],
        finished_events={(ASKER, event): DONE_AT for event in ("e1", "e2", "e3")},
        finished_places={(ASKER, place(4)): DONE_AT},
        stored=frozenset({"o-e1", "c-e1"}),
        published=frozenset({"o-e1", "c-e1"}),
        bought=[Bought("e1", DONE_AT - 2)],
        kept={"e1": DONE_AT - 1},
        begun=[Begun(ASKER, "e1", DONE_AT - 3), Begun(ASKER, "e4", None)],
    )


def test_a_sound_run_is_found_sound() -> None:
    assert judge(sound()) == []


def dropping(field: str, index: int) -> Callable[[Evidence], Evidence]:
    def doctored(evidence: Evidence) -> Evidence:
        kept = list(getattr(evidence, field))
        del kept[index]
        return replace(evidence, **{field: kept})

    return doctored


def adding(field: str, *more: object) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, **{field: [*getattr(evidence, field), *more]})


def swapping(field: str) -> Callable[[Evidence], Evidence]:
    def doctored(evidence: Evidence) -> Evidence:
        first, second, *rest = getattr(evidence, field)
        return replace(evidence, **{field: [second, first, *rest]})

    return doctored


def setting(**fields: object) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, **fields)  # type: ignore[arg-type]


LETTERS = sound().letters
DOCTORED = {
    "an outcome is missing": ("I1", dropping("outcomes", 1)),
    "a late message was answered": (
        "I1",
        lambda e: replace(e, outcomes=[*e.outcomes[:2], outcome("e3", "late", 1), e.outcomes[3]]),
    ),
    "a dead letter is missing": ("I1", dropping("letters", 1)),
    "a sound record is a dead letter": ("I1", adding("letters", Letter(ASKER, place(0), DONE_AT))),
    "a follower is not in the queue": ("I1", setting(waiting=frozenset())),
    "a follower overtook its dead letter": ("I1", adding("outcomes", outcome("e5", "cursed", 2))),
    "an event has two outcomes": (
        "I2",
        adding("outcomes", replace(outcome("e1", "t", 3), event="another")),
    ),
    "an effect came twice, under two keys": ("I2", adding("effects", replace(effect("e1", "t", 1), key="t/1/again"))),
    "an effect is missing": ("I2", dropping("effects", 1)),
    "an effect is not in the shop": ("I2", setting(effects_kept=frozenset({"t/1", "t/2", "late/1"}))),
    "an effect nobody asked for": ("I2", adding("effects", effect("e9", "x", 1))),
    "a reply is another's": ("I2", adding("effects", effect("e2", "t", 1))),
    "outcomes are in the wrong order": ("I3", swapping("outcomes")),
    "commands are in the wrong order": ("I3", swapping("commands")),
    "effects are in the wrong order": ("I3", swapping("effects")),
    "messages were handled in the wrong order": (
        "I3",
        lambda e: replace(e, outcomes=[outcome("e2", "t", 1), outcome("e1", "t", 2), *e.outcomes[2:]]),
    ),
    "an offset was committed before its record was settled": (
        "I4",
        adding("samples", Sample(DONE_AT - 1, ASKER, place(1))),
    ),
    "an offset was committed before its dead letter was written": (
        "I4",
        lambda e: replace(e, letters=[LETTERS[0], replace(LETTERS[1], at=DONE_AT + 9)]),
    ),
    "an offset was committed whose record nobody finished": ("I4", adding("logged", Logged(ASKER, place(5), "e7"))),
    "the outbox is not empty": ("I5", setting(unpublished=1)),
    "a stored event is on no topic": ("I5", setting(published=frozenset({"o-e1"}))),
    "it never came to rest": ("I6", setting(recovery_s=None)),
    "a kept answer was bought again": ("P", adding("bought", Bought("e1", DONE_AT))),
    "a settled event was handled again": ("R", adding("begun", Begun(ASKER, "e1", DONE_AT + 1))),
    "a worker ended by itself": ("E", setting(ended=["asker-0 ended by itself with code 1"])),
}


@pytest.mark.parametrize("what", DOCTORED)
def test_a_doctored_ledger_is_found_out(what: str) -> None:
    law, doctored = DOCTORED[what]
    assert law in {violation.law for violation in judge(doctored(sound()))}


def test_what_is_published_twice_under_one_id_is_one_event() -> None:
    again = adding("outcomes", outcome("e1", "t", 1))(adding("commands", command("e1", "t", 1))(sound()))
    assert judge(again) == []


def test_a_repeated_try_is_one_effect() -> None:
    assert judge(adding("effects", effect("e1", "t", 1))(sound())) == []


@pytest.mark.parametrize("first", [0, 1], ids=["the first one is read first", "the second one is read first"])
def test_a_dead_letter_that_a_replay_writes_again_was_written_the_first_time(first: int) -> None:
    both = [LETTERS[1], replace(LETTERS[1], at=DONE_AT + 9)]
    assert judge(replace(sound(), letters=[LETTERS[0], both[first], both[1 - first]])) == []


def test_a_topic_made_anew_is_another_topic() -> None:
    old = [Logged(ASKER, place(n)._replace(generation=1), f"old-{n}") for n in range(3)]
    assert judge(adding("logged", *old)(sound())) == []
