"""Between records and events: CloudEvents 1.0 in binary mode, or a plain JSON ticket."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from bus.headers import Headers, in_utc, text_of
from contracts.errors import ContractBroken, Undecodable, UnknownSchemaVersion
from contracts.events import CustomerReplied, Event, Payload, TicketSubmitted
from contracts.ports import OutgoingRecord, Record
from contracts.topics import Topic, topic_of

_SPEC_VERSION = "1.0"
_WRITTEN_BY_CUSTOMERS = frozenset({TicketSubmitted, CustomerReplied})
_UNNAMED_PRODUCER = "urn:switchyard:producer"
_ROOM_FOR_THE_REST = 4096  # key, our headers and Kafka's own framing


def encode(
    payload: Payload,
    *,
    cause: Event | None,
    event_id: str,
    time: datetime,
    source: str,
    deadline: datetime | None,
    traceparent: str | None,
) -> OutgoingRecord:
    """An event as the record that carries it. Raises ContractBroken: it does not fit its topic."""
    topic = topic_of(payload)
    headers = (
        *_fixed_headers(type(payload), source),
        ("ce_id", event_id.encode()),
        ("ce_time", text_of(time).encode()),
    )
    if cause is not None:
        headers += (("ce_causationid", cause.id.encode()),)
    if traceparent is not None:
        headers += (("traceparent", traceparent.encode()),)
    if deadline is not None:
        headers += (("deadline", text_of(deadline).encode()),)
    return OutgoingRecord(event_id, payload.type_name(), payload.ticket_id, topic.name, _json(payload, topic), headers)


@functools.lru_cache(maxsize=1024)
def _fixed_headers(payload: type[Payload], source: str) -> tuple[tuple[str, bytes], ...]:
    """What all records of a payload class and a source have in common."""
    return (
        ("ce_specversion", _SPEC_VERSION.encode()),
        ("ce_type", payload.type_name().encode()),
        ("ce_source", source.encode()),
        ("ce_dataschema", _schema_of(payload).encode()),
        ("content-type", b"application/json"),
    )


def _json(payload: Payload, topic: Topic) -> bytes:
    try:
        value = payload.model_dump_json().encode()
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise ContractBroken(f"{payload.type_name()} cannot be written as JSON") from error
    if len(value) > topic.max_message_bytes - _ROOM_FOR_THE_REST:
        raise ContractBroken(f"{payload.type_name()} is larger than {topic.name} takes: {len(value)} bytes")
    return value


@functools.cache
def _schema_of(payload: type[Payload]) -> str:
    return f"urn:switchyard:{payload.type_name()}:{payload.schema_version}"


@dataclass(frozen=True, slots=True)
class Codec:
    """Reads records. A customer's message without a deadline gets one, `default_deadline` after it was written."""

    default_deadline: timedelta
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def decode(self, topic: Topic, record: Record) -> Event:
        """The event a record holds; fields and headers it does not know are ignored.

        Raises Undecodable or UnknownSchemaVersion. Their messages name the field, never what a stranger wrote.
        """
        if not record.headers and topic.bare_json:
            return self._bare(topic, record)
        headers = Headers(record.headers)
        payload = _payload(record, _kind(topic, headers))
        time = headers.instant("ce_time") or self._written_at(record)
        return Event(
            id=headers.identifier("ce_id") or _derived_id(payload),
            source=headers.identifier("ce_source") or _UNNAMED_PRODUCER,
            time=time,
            data=payload,
            deadline=headers.instant("deadline") or self._deadline(payload, time),
            causation_id=headers.identifier("ce_causationid"),
            traceparent=headers.traceparent(),
        )

    def _bare(self, topic: Topic, record: Record) -> Event:
        """The same, for a record without headers."""
        kind = topic.payloads[0]
        if not issubclass(kind, Payload):
            raise Undecodable(f"a record without headers is nothing that {topic.name} holds")
        payload = _payload(record, kind)
        time = self._written_at(record)
        return Event(_derived_id(payload), _UNNAMED_PRODUCER, time, payload, self._deadline(payload, time))

    def _written_at(self, record: Record) -> datetime:
        """The record's timestamp; now when a client left it out or made it up."""
        try:
            return datetime.fromtimestamp(record.timestamp / 1000, UTC) if record.timestamp > 0 else self.clock()
        except (OverflowError, ValueError, OSError):
            return self.clock()

    def _deadline(self, payload: Payload, time: datetime) -> datetime | None:
        if type(payload) not in _WRITTEN_BY_CUSTOMERS:
            return None
        asked: datetime | None = payload.deadline  # type: ignore[attr-defined]
        if asked is not None:
            return in_utc(asked, "deadline")
        try:
            return time + self.default_deadline
        except OverflowError as error:
            raise Undecodable("ce_time is out of range") from error


def _payload(record: Record, kind: type[Payload]) -> Payload:
    if record.value is None:
        raise Undecodable("the record has no value")
    try:
        payload = kind.model_validate_json(record.value, extra="ignore")
    except ValidationError as error:
        raise Undecodable(_complaint(kind, error)) from None  # its text quotes the input
    if record.key and record.key != payload.ticket_id.encode():
        raise Undecodable("the key is not the ticket_id")
    return payload


def _kind(topic: Topic, headers: Headers) -> type[Payload]:
    if headers.identifier("ce_specversion") not in (None, _SPEC_VERSION):
        raise UnknownSchemaVersion("the header ce_specversion is not 1.0")
    kinds = _kinds_on(topic.payloads)
    name = headers.identifier("ce_type")
    if name is None and topic.bare_json:
        name = topic.payloads[0].type_name()
    if name not in kinds:
        raise Undecodable(f"the header ce_type names none of {topic.name}: {', '.join(kinds)}")
    if headers.identifier("ce_dataschema") not in (None, _schema_of(kinds[name])):
        raise UnknownSchemaVersion(f"the header ce_dataschema is not {_schema_of(kinds[name])}")
    return kinds[name]


@functools.cache
def _kinds_on(payloads: tuple[type[Any], ...]) -> dict[str, type[Payload]]:
    """The payload classes of a topic by their names."""
    return {payload.type_name(): payload for payload in payloads if issubclass(payload, Payload)}


def _complaint(kind: type[Payload], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = f"the field {first['loc'][0]}" if first["loc"] else "the value"
    return f"{field} of {kind.type_name()} is wrong: {first['type']}"


def _derived_id(payload: Payload) -> str:
    if isinstance(payload, TicketSubmitted):
        return payload.derived_event_id()
    raise Undecodable(f"the header ce_id is missing: {payload.type_name()} cannot do without")
