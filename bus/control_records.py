"""Orders of ops and their answers as records of the control topic."""

from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError

from bus.headers import Headers, text_of
from contracts.control import ControlOrder
from contracts.errors import Undecodable
from contracts.events import ControlAnswered, ControlCommand, caused_id
from contracts.ports import Record
from contracts.topics import CONTROL

_KINDS: dict[str, type[ControlCommand]] = {
    payload.type_name(): payload for payload in CONTROL.payloads if issubclass(payload, ControlCommand)
}


class ControlRecord(NamedTuple):
    """What is published: those of one group keep their order."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def control_record(command: ControlOrder | ControlAnswered, *, source: str) -> ControlRecord:
    """An order or an answer as the record that carries it. An answer's id is the same however often it is given."""
    headers = {
        "ce_specversion": "1.0",
        "ce_type": command.type_name(),
        "ce_source": source,
        "ce_dataschema": _schema_of(type(command)),
        "content-type": "application/json",
        "ce_id": _id_of(command),
        "ce_time": text_of(datetime.now(UTC)),
    }
    encoded = tuple((name, value.encode()) for name, value in headers.items())
    return ControlRecord(command.group.encode(), command.model_dump_json().encode(), encoded)


def command_in(record: Record) -> ControlCommand:
    """The order or answer a record holds; fields it does not know are ignored. Raises Undecodable: it holds none."""
    headers = Headers(record.headers)
    kind = _KINDS.get(headers.identifier("ce_type") or "")
    if kind is None or record.value is None or headers.identifier("ce_dataschema") not in (None, _schema_of(kind)):
        raise Undecodable(f"no command or answer of {CONTROL.name} that this version knows")
    try:
        return kind.model_validate_json(record.value, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Undecodable(f"the field {first['loc']} of {kind.type_name()} is wrong: {first['type']}") from None


def _id_of(command: ControlCommand) -> str:
    if isinstance(command, ControlAnswered):
        return caused_id(command.command_id, command.worker or "", 0)
    return command.command_id


def _schema_of(kind: type[ControlCommand]) -> str:
    return f"urn:switchyard:{kind.type_name()}:{kind.schema_version}"
