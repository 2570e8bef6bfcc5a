"""Dead letters read back: what a record tells, also one that a stranger had a hand in."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.dead_letters import _headers
from bus.delivery import Delivery
from bus.letters import letter_in, merged, named_in, original
from bus.outcome import DeadLetter
from contracts.errors import Undecodable
from contracts.letters import Origin
from contracts.ports import Position, Record

TOPIC, GROUP = "support.tickets.v1", "triage"
names = st.sampled_from(["ce_id", "switchyard-redrives", "kafka_dlt-original-topic", "kafka_dlt-attempts", "odd"])
headers = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=5))), max_size=6)
values = st.one_of(st.none(), st.binary(max_size=20), st.just(b'{"ticket_id":"t1"}'))


def dead(record: Record, offset: int = 5) -> Record:
    """The record as its group's dead-letter topic holds it."""
    delivery = Delivery(record, "t1")
    delivery.attempts = 8
    letter = DeadLetter(Undecodable("the field body is wrong: missing"), "abc")
    added = _headers(GROUP, delivery, letter)
    return Record(
        f"{TOPIC}.{GROUP}.dlt", 3, offset, 1_700_000_001_000, record.key, record.value, (*record.headers, *added)
    )


@given(st.one_of(st.none(), st.binary(max_size=5)), values, headers)
def test_what_is_put_back_is_the_record_as_it_was_and_a_count(
    key: bytes | None, value: bytes | None, own: list[tuple[str, bytes | None]]
) -> None:
    record = Record(TOPIC, 3, 7, 1_700_000_000_000, key, value, tuple(own))
    letter = letter_in(GROUP, TOPIC, dead(record))
    assert letter is not None
    assert letter.origin == Origin(TOPIC, 3, 7, 1_700_000_000_000)
    assert (letter.error, letter.attempts, letter.trace_id) == ("Undecodable", 8, "abc")
    kept = tuple(header for header in own if header[0] != "switchyard-redrives")
    back = original(dead(record), 2)
    assert back == (TOPIC, key, value, (*kept, ("switchyard-redrives", b"2")))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, ("", "")),
        (b"\xff", ("", "")),
        (b"[" * 100_000, ("", "")),
        (b"[1]", ("", "")),
        (b'{"ticket_id":"t1"}', ("t1", "default")),
        (b'{"ticket_id":"t1","tenant_id":"acme"}', ("t1", "acme")),
        (b'{"ticket_id":7,"tenant_id":null}', ("", "")),
        (rb'{"ticket_id":"nul \u0000","tenant_id":"half \ud800"}', ("", "")),
    ],
)
def test_ticket_and_tenant_are_told_where_the_bytes_name_them(value: bytes | None, named: tuple[str, str]) -> None:
    assert named_in(Record(TOPIC, 0, 0, 0, None, value)) == named


def test_what_no_worker_wrote_about_this_topic_is_no_letter() -> None:
    assert letter_in(GROUP, TOPIC, Record(f"{TOPIC}.{GROUP}.dlt", 0, 0, 0, b"k", b"v")) is None
    elsewhere = dead(Record("support.control.v1", 0, 0, 0, b"k", b"v"))
    assert letter_in(GROUP, TOPIC, elsewhere) is None


@pytest.mark.parametrize("count", [b"-1", b"x", b"9" * 40, "²".encode(), b"", None])
def test_a_count_of_redrives_that_a_stranger_made_up_is_none(count: bytes | None) -> None:
    letter = letter_in(GROUP, TOPIC, dead(Record(TOPIC, 0, 0, 0, b"k", b"v", (("switchyard-redrives", count),))))
    assert letter is not None
    assert letter.put_back == 0


def test_copies_of_one_letter_are_one_as_it_failed_last() -> None:
    one, other = Record(TOPIC, 0, 1, 1, b"k", b"v"), Record(TOPIC, 0, 2, 1, b"k", b"v")
    found = [letter_in(GROUP, TOPIC, dead(record, offset)) for record, offset in ((one, 9), (other, 8), (one, 7))]
    letters = merged([letter for letter in found if letter is not None])
    assert [[copy.offset for copy in letter.copies] for letter in letters] == [[7, 9], [8]]
    assert letters[0].copies[0] == Position(f"{TOPIC}.{GROUP}.dlt", 3, 7)
    assert letters[0].failed_at == datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)
