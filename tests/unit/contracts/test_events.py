"""Ids, closed sets and shapes of events, as producers and redeliveries rely on them."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.errors import ContractBroken
from contracts.events import (
    ACTION_OF_COMMAND,
    OUTCOME_OF_DISPOSITION,
    Command,
    CustomerReplied,
    LookupRequested,
    Payload,
    ReturnItems,
    RoundExpired,
    RoundReopened,
    TicketSubmitted,
    caused_id,
)
from contracts.topics import CATALOGUE, INBOX_OF_GROUP, all_topics, dead_letter_topic, topic_of
from contracts.values import Disposition
from tests.unit.contracts.strategies import identifiers, submissions


@given(submissions)
def test_a_derived_id_is_a_uuid_and_the_same_at_every_reading(data: TicketSubmitted) -> None:
    again = TicketSubmitted.model_validate(data.model_dump())
    assert uuid.UUID(data.derived_event_id()).version == 5
    assert data.derived_event_id() == again.derived_event_id()


BARE = TicketSubmitted(ticket_id="t1", body="Hello")
CHANGES = [
    {"ticket_id": "t2"},
    {"tenant_id": "acme"},
    {"body": "Hello!"},
    {"subject": "Hello"},
    {"from_email": "ann@example.com"},
    {"order_ref": "#1"},
    {"message_id": "m1"},
]


def test_whatever_was_written_differently_has_another_derived_id() -> None:
    changed = [BARE.model_copy(update=change) for change in CHANGES]
    assert len({data.derived_event_id() for data in [BARE, *changed]}) == 1 + len(CHANGES)


def test_text_moved_from_one_field_to_the_next_has_another_derived_id() -> None:
    one = TicketSubmitted(ticket_id="t", subject="ab", body="c")
    other = TicketSubmitted(ticket_id="t", subject="a", body="bc")
    assert one.derived_event_id() != other.derived_event_id()


def test_derived_ids_never_change_between_releases() -> None:
    assert BARE.derived_event_id() == "daa68b59-dcce-560d-94f8-421397e5df3f"
    assert caused_id("e1", "triage", 0) == "06022a0d-f3f5-5f1d-80a7-ec0129c7212e"


@given(identifiers, identifiers, st.integers(0, 50))
def test_a_caused_id_is_the_same_at_every_retry(cause: str, group: str, index: int) -> None:
    assert caused_id(cause, group, index) == caused_id(cause, group, index)
    assert caused_id(cause, group, index) != caused_id(cause, group, index + 1)


def test_caused_ids_tell_causes_groups_and_places_apart() -> None:
    ids = {caused_id(cause, group, i) for cause in ("e1", "e2") for group in ("triage", "lookup") for i in range(12)}
    assert len(ids) == 48


@pytest.mark.parametrize("payload", [TicketSubmitted, CustomerReplied])
def test_a_writer_may_set_only_known_fields(payload: type[Payload]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        payload.model_validate({"ticket_id": "t", "body": "b", "boddy": "x"})


@given(submissions)
def test_a_reader_ignores_unknown_fields_and_reads_back_what_was_written(data: TicketSubmitted) -> None:
    written = data.model_dump() | {"added_later": 1}
    assert TicketSubmitted.model_validate(written, extra="ignore") == data


@pytest.mark.parametrize("number", [0, -1])
def test_a_round_is_counted_from_one(number: int) -> None:
    with pytest.raises(ValidationError):
        LookupRequested(ticket_id="t", round=number)


def test_a_return_names_at_least_one_item() -> None:
    with pytest.raises(ValidationError, match="item_ids"):
        ReturnItems(ticket_id="t", effect_key="k", round=1, order_id="#1", item_ids=(), payment_method_id="p")


def test_a_deadline_without_an_offset_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        TicketSubmitted.model_validate({"ticket_id": "t", "body": "b", "deadline": "2030-01-01T00:00:00"})


def test_every_disposition_has_its_outcome() -> None:
    assert set(OUTCOME_OF_DISPOSITION) == set(Disposition)


def test_every_shop_command_is_an_action_of_the_policy() -> None:
    assert all(issubclass(command, Command) for command in ACTION_OF_COMMAND)
    assert len(set(ACTION_OF_COMMAND.values())) == len(ACTION_OF_COMMAND)


# --- the topic catalogue ----------------------------------------------------------------------------------


def test_every_type_belongs_on_one_topic() -> None:
    payloads = [payload for topic in CATALOGUE for payload in topic.payloads]
    assert len(payloads) == len(set(payloads))
    assert len({payload.type_name() for payload in payloads}) == len(payloads)


def test_every_payload_class_that_is_not_a_base_is_in_the_catalogue() -> None:
    kinds, open_ = set(), [Payload]
    while open_:
        kind = open_.pop()
        open_ += kind.__subclasses__()
        if kind.__module__ == Payload.__module__ and not kind.__subclasses__():
            kinds.add(kind)
    on_no_topic = {RoundExpired, RoundReopened}
    assert kinds - on_no_topic == {p for topic in CATALOGUE for p in topic.payloads if issubclass(p, Payload)}


def test_a_payload_finds_its_topic() -> None:
    assert topic_of(BARE).name == "support.tickets.v1"
    assert topic_of(LookupRequested(ticket_id="t", round=1)).name == "support.lookup.v1"


def test_a_base_class_belongs_on_no_topic() -> None:
    with pytest.raises(ContractBroken, match="Payload belongs on no topic"):
        topic_of(Payload(ticket_id="t"))


def test_each_group_has_dead_letters_of_its_own_with_room_for_more_headers() -> None:
    topics = {topic.name: topic for topic in all_topics()}
    for group, topic in INBOX_OF_GROUP.items():
        dead_letters = topics[dead_letter_topic(topic.name, group)]
        assert dead_letters.name == f"{topic.name}.{group}.dlt"
        assert dead_letters.partitions == topic.partitions
        assert dead_letters.max_message_bytes > topic.max_message_bytes
        assert dead_letters.retention_ms > topic.retention_ms


def test_topic_names_are_unique_and_such_as_kafka_takes() -> None:
    names = [topic.name for topic in all_topics()]
    assert len(names) == len(set(names))
    assert all(len(name) <= 249 and name.replace(".", "").replace("-", "").isalnum() for name in names)


def test_settings_are_spelled_as_kafka_spells_them() -> None:
    settings = topic_of(BARE).config()
    assert settings["cleanup.policy"] == "delete"
    assert settings["retention.ms"] == str(7 * 24 * 3600 * 1000)
