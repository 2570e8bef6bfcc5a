import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.codec import Codec, encode
from contracts.errors import ContractBroken, Undecodable, UnknownSchemaVersion
from contracts.events import (
    CancelOrder,
    ChangeAddress,
    CustomerReplied,
    Event,
    LookupRequested,
    Payload,
    ReasoningRequested,
    ReturnItems,
    SendReply,
    TicketSubmitted,
)
from contracts.ports import OutgoingRecord, Record
from contracts.shop import Address
from contracts.topics import EFFECTS, LOOKUP, TICKETS, topic_of
from tests.unit.bus.kit import NOW, event, record, ticket_json
from tests.unit.contracts.strategies import any_text, identifiers, submissions

CODEC = Codec(default_deadline=timedelta(hours=1), clock=lambda: NOW)
SECRET = "my card is 4111 1111 1111 1111"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

moments = st.timedeltas(timedelta(days=-20_000), timedelta(days=2_000_000)).map(lambda away: NOW + away)
rounds = st.integers(1, 99)
payloads = st.one_of(
    submissions,
    st.builds(CustomerReplied, ticket_id=identifiers, body=any_text, deadline=st.none() | moments),
    st.builds(LookupRequested, ticket_id=identifiers, round=rounds),
    st.builds(ReasoningRequested, ticket_id=identifiers, tenant_id=identifiers, round=rounds),
    st.builds(CancelOrder, ticket_id=identifiers, effect_key=identifiers, round=rounds, order_id=any_text),
    st.builds(ReturnItems, ticket_id=identifiers, effect_key=identifiers, round=rounds, item_ids=st.just(("1", "2"))),
    st.builds(
        ChangeAddress,
        ticket_id=identifiers,
        effect_key=identifiers,
        round=rounds,
        address=st.builds(Address, address1=any_text, city=any_text),
    ),
    st.builds(SendReply, ticket_id=identifiers, effect_key=identifiers, round=rounds, text=any_text),
)
headers = st.lists(st.tuples(st.text(max_size=8) | st.sampled_from(["ce_type", "ce_id", "deadline"]), st.binary()))


def as_read(outgoing: OutgoingRecord, *, offset: int = 0) -> Record:
    return record(outgoing.value, key=outgoing.ticket_id.encode(), headers=outgoing.headers, offset=offset)


def encoded(payload: Payload, **changed: object) -> OutgoingRecord:
    plain = {"cause": None, "event_id": "e1", "time": NOW, "source": "s", "deadline": None, "traceparent": None}
    return encode(payload, **(plain | changed))  # type: ignore[arg-type]


@given(payloads, identifiers, identifiers, moments, st.none() | moments)
def test_decode_undoes_encode(
    payload: Payload, event_id: str, source: str, time: datetime, deadline: datetime | None
) -> None:
    cause = event(event_id="cause")
    outgoing = encode(
        payload,
        cause=cause,
        event_id=event_id,
        time=time,
        source=source,
        deadline=deadline,
        traceparent=TRACEPARENT,
    )
    read = CODEC.decode(topic_of(payload), as_read(outgoing))
    expected = Event(event_id, source, time, payload, read.deadline, "cause", TRACEPARENT)
    assert read == expected
    assert deadline is None or read.deadline == deadline


@given(st.binary() | submissions.map(lambda s: s.model_dump_json().encode()), headers, st.none() | st.binary())
def test_whatever_a_stranger_writes_is_an_event_or_undecodable(
    value: bytes, headers: list[tuple[str, bytes]], key: bytes | None
) -> None:
    try:
        read = CODEC.decode(TICKETS, record(value, headers=tuple(headers), key=key, timestamp=2**62))
    except Undecodable:
        return
    assert isinstance(read, Event)


def test_the_headers_are_cloudevents_in_binary_mode() -> None:
    outgoing = encoded(LookupRequested(ticket_id="t1", round=1), cause=event(), deadline=NOW, traceparent=TRACEPARENT)
    assert dict(outgoing.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e1",
        "ce_type": b"LookupRequested",
        "ce_source": b"s",
        "ce_time": b"2026-11-01T12:00:00Z",
        "ce_dataschema": b"urn:switchyard:LookupRequested:1",
        "ce_causationid": b"e1",
        "content-type": b"application/json",
        "traceparent": TRACEPARENT.encode(),
        "deadline": b"2026-11-01T12:00:00Z",
    }
    assert (outgoing.topic, outgoing.ticket_id, outgoing.type) == ("support.lookup.v1", "t1", "LookupRequested")
    assert json.loads(outgoing.value) == {"ticket_id": "t1", "tenant_id": "default", "round": 1}


def test_plain_json_is_a_submission_with_an_id_of_its_content_and_a_default_deadline() -> None:
    read = CODEC.decode(TICKETS, record(ticket_json(), key=b"t1"))
    again = CODEC.decode(TICKETS, record(ticket_json(), offset=7))
    assert read == again
    assert isinstance(read.data, TicketSubmitted)
    assert read.id == read.data.derived_event_id()
    assert read.time == NOW
    assert read.deadline == NOW + timedelta(hours=1)


def test_the_deadline_is_the_headers_else_the_payloads() -> None:
    in_payload = record(ticket_json(deadline="2026-11-01T14:00:00+01:00"))
    assert CODEC.decode(TICKETS, in_payload).deadline == NOW + timedelta(hours=1)
    both = replace(in_payload, headers=(("deadline", b"2026-11-01T12:30:00Z"),))
    assert CODEC.decode(TICKETS, both).deadline == NOW + timedelta(minutes=30)


def test_a_handoff_or_command_without_a_deadline_has_none() -> None:
    assert CODEC.decode(LOOKUP, as_read(encoded(LookupRequested(ticket_id="t1", round=1)))).deadline is None
    command = CancelOrder(ticket_id="t", effect_key="k", round=1, order_id="o", reason="no longer needed")
    assert CODEC.decode(EFFECTS, as_read(encoded(command))).deadline is None


@pytest.mark.parametrize("timestamp", [-1, 0, 2**62])
def test_a_record_without_a_usable_timestamp_was_written_now(timestamp: int) -> None:
    assert CODEC.decode(TICKETS, record(ticket_json(), timestamp=timestamp)).time == NOW


def test_unknown_fields_and_headers_are_ignored() -> None:
    read = CODEC.decode(TICKETS, record(ticket_json(new_field={"a": [1]}), headers=(("x", None), ("y", b"\xff"))))
    assert isinstance(read.data, TicketSubmitted)


def test_a_malformed_traceparent_is_dropped() -> None:
    assert CODEC.decode(TICKETS, record(ticket_json(), headers=(("traceparent", b"\x00junk"),))).traceparent is None


def test_nul_in_a_body_becomes_a_character_that_can_be_stored() -> None:
    read = CODEC.decode(TICKETS, record(b'{"ticket_id":"t1","body":"a\\u0000b"}'))
    assert isinstance(read.data, TicketSubmitted)
    assert read.data.body == "a\N{REPLACEMENT CHARACTER}b"


def test_a_body_of_a_megabyte_passes() -> None:
    read = CODEC.decode(TICKETS, record(ticket_json(body='"' * 1_000_000)))
    assert isinstance(read.data, TicketSubmitted)
    assert len(read.data.body) == 1_000_000
    assert len(encoded(read.data).value) > 2_000_000


NESTED = b"[" * 10_000 + b"]" * 10_000
BAD = {
    "no value": record(None),
    "an empty value": record(b""),
    "no JSON": record(b"body=" + SECRET.encode()),
    "cut JSON": record(ticket_json(body=SECRET)[:-2]),
    "bad UTF-8": record(ticket_json(body=SECRET).replace(b"card", b"c\xffrd")),
    "a lone surrogate": record(b'{"ticket_id":"t1","body":"' + SECRET.encode() + b'\\ud800"}'),
    "a list": record(json.dumps([SECRET]).encode()),
    "a string": record(json.dumps(SECRET).encode()),
    "null": record(b"null"),
    "deep nesting": record(b'{"ticket_id":"t1","body":"x","z":' + NESTED + b"}"),
    "deep nesting alone": record(NESTED),
    "no body": record(json.dumps({"ticket_id": "t1", "subject": SECRET}).encode()),
    "no ticket id": record(json.dumps({"body": SECRET}).encode()),
    "an empty ticket id": record(ticket_json(ticket_id="")),
    "a ticket id with NUL": record(ticket_json(ticket_id="a\x00b")),
    "a long ticket id": record(ticket_json(ticket_id=SECRET * 9)),
    "a body that is a number": record(ticket_json(body=5)),
    "a body that is an object": record(ticket_json(body={"text": SECRET})),
    "a deadline without an offset": record(ticket_json(deadline="2026-11-01T12:00:00")),
    "a deadline at the end of time": record(ticket_json(deadline="9999-12-31T23:59:59-23:00")),
    "another key": record(ticket_json(body=SECRET), key=b"t2"),
    "a type of another topic": record(ticket_json(), headers=(("ce_type", b"CancelOrder"),)),
    "a type with customer text": record(ticket_json(), headers=(("ce_type", SECRET.encode()),)),
    "a type that is not UTF-8": record(ticket_json(), headers=(("ce_type", b"\xff"),)),
    "an empty id": record(ticket_json(), headers=(("ce_id", b""),)),
    "an id with NUL": record(ticket_json(), headers=(("ce_id", b"a\x00b"),)),
    "an endless id": record(ticket_json(), headers=(("ce_id", SECRET.encode() * 10),)),
    "a bad time": record(ticket_json(), headers=(("ce_time", SECRET.encode()),)),
    "a time without an offset": record(ticket_json(), headers=(("ce_time", b"2026-11-01T12:00:00"),)),
    "a time at the end of time": record(ticket_json(), headers=(("ce_time", b"9999-12-31T23:59:59Z"),)),
    "a bad deadline": record(ticket_json(), headers=(("deadline", SECRET.encode()),)),
    "a bad source": record(ticket_json(), headers=(("ce_source", b"\x00"),)),
    "a follow-up without an id": record(ticket_json(), headers=(("ce_type", b"CustomerReplied"),)),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_undecodable_and_told_without_quoting_the_customer(bad: Record) -> None:
    with pytest.raises(Undecodable) as caught:
        CODEC.decode(TICKETS, bad)
    assert not any(word in str(caught.value) for word in SECRET.split() if len(word) > 2)
    assert 10 < len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_dataschema", b"urn:switchyard:TicketSubmitted:99"),
        ("ce_dataschema", b"urn:switchyard:CancelOrder:1"),
        ("ce_specversion", b"2.0"),
    ],
)
def test_an_unknown_version_is_not_guessed_at(name: str, value: bytes) -> None:
    with pytest.raises(UnknownSchemaVersion, match=name):
        CODEC.decode(TICKETS, record(ticket_json(), headers=((name, value),)))


def test_a_record_without_a_type_is_undecodable_where_plain_json_is_not_welcome() -> None:
    with pytest.raises(Undecodable, match="ce_type"):
        CODEC.decode(EFFECTS, record(ticket_json()))


def test_an_event_that_does_not_fit_its_topic_is_refused_before_it_is_stored() -> None:
    with pytest.raises(ContractBroken, match="larger than"):
        encoded(TicketSubmitted(ticket_id="t1", body="x" * 2_100_000))


def test_text_that_no_json_can_carry_is_refused() -> None:
    with pytest.raises(ContractBroken, match="cannot be written"):
        encoded(SendReply(ticket_id="t1", effect_key="k", round=1, to_email="a", subject="b", text="\ud800"))
