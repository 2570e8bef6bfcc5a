"""The wire: which APIs and versions are spoken, requests read and answers written by kio's codec."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin

from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.serial.errors import SerialError

Fields = Mapping[str, Any]
"""An answer by field names; what a version does not have is left out, what is not told gets its default."""

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 3, 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP, DESCRIBE_GROUPS, LIST_GROUPS = 11, 12, 13, 14, 15, 16
API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID = 18, 19, 20, 21, 22
DESCRIBE_CONFIGS, ALTER_CONFIGS, CREATE_PARTITIONS, DELETE_GROUPS, INCREMENTAL_ALTER_CONFIGS = 32, 33, 37, 42, 44

VERSIONS: Mapping[int, tuple[int, int]] = {
    PRODUCE: (3, 8),
    FETCH: (4, 11),
    LIST_OFFSETS: (1, 5),
    METADATA: (0, 8),
    OFFSET_COMMIT: (2, 7),
    OFFSET_FETCH: (1, 5),
    FIND_COORDINATOR: (0, 2),
    JOIN_GROUP: (0, 5),
    HEARTBEAT: (0, 3),
    LEAVE_GROUP: (0, 3),
    SYNC_GROUP: (0, 3),
    DESCRIBE_GROUPS: (0, 4),
    LIST_GROUPS: (0, 2),
    API_VERSIONS: (0, 3),
    CREATE_TOPICS: (2, 4),
    DELETE_TOPICS: (1, 3),
    DELETE_RECORDS: (0, 1),
    INIT_PRODUCER_ID: (0, 1),
    DESCRIBE_CONFIGS: (1, 2),
    ALTER_CONFIGS: (0, 1),
    CREATE_PARTITIONS: (0, 1),
    DELETE_GROUPS: (0, 1),
    INCREMENTAL_ALTER_CONFIGS: (0, 0),
}
"""The oldest and newest version of every API that is served: the ones before Kafka's flexible encoding."""


_LENGTH_WIDTHS = {"string": 2, "bytes": 4, "records": 4}
_WIDTHS = {"bool": 1, "int8": 1, "int16": 2, "int32": 4, "timedelta_i32": 4, "int64": 8, "timedelta_i64": 8}


class Malformed(Exception):
    """The bytes are no request that is spoken here: the connection ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read; `body` is kio's entity of its version."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str
    body: Any


class _Pieces(list[bytes]):
    """What kio writes into: the pieces are joined once, so records are not copied from buffer to buffer."""

    write = list.append


def read_request(frame: bytes) -> Request:
    """Read one frame (without its length). Raises Malformed."""
    api_key, version = int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big")
    oldest, newest = VERSIONS.get(api_key, (0, -1))
    if api_key == API_VERSIONS and version > newest and len(frame) >= 8:
        return Request(api_key, version, int.from_bytes(frame[4:8], "big", signed=True), "", None)
    if not oldest <= version <= newest:
        raise Malformed(f"API {api_key} version {version} is not spoken here")
    schema, read_header, read_body = _readers(api_key, version)
    try:
        header, size = read_header(frame, 0)
        if not schema.__flexible__:
            _check_lengths(schema, frame, size)
        body, _ = read_body(frame, size)
    except (SerialError, ValueError, TypeError, OverflowError, LookupError) as error:
        raise Malformed(f"API {api_key} version {version} cannot be read: {error}") from error
    return Request(api_key, version, header.correlation_id, header.client_id or "", body)


@cache
def _readers(api_key: int, version: int) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    schema = load_request_schema(api_key, version)
    return schema, entity_reader(cast(Any, schema.__header_schema__)), entity_reader(schema)


def _check_lengths(schema: Any, frame: bytes, position: int) -> int:
    """Walk over an entity and return where it ends. Raises Malformed: a length reaches beyond the frame.

    kio reserves memory for as many items as a list claims to have, before it looks for them: two
    billion of them would end the process.
    """
    for is_list, nested, kind in _shape(schema):
        count = 1
        if is_list:
            count = int.from_bytes(frame[position : position + 4], "big", signed=True)
            position += 4
        if count > len(frame) - position:
            raise Malformed("a list is longer than its request")
        for _ in range(count):
            position = _check_lengths(nested, frame, position) if nested else _end_of(kind, frame, position)
    return position


def _end_of(kind: str, frame: bytes, position: int) -> int:
    if width := _LENGTH_WIDTHS.get(kind):
        length = int.from_bytes(frame[position : position + width], "big", signed=True)
        return position + width + max(length, 0)
    return position + _WIDTHS[kind]


@cache
def _shape(schema: Any) -> tuple[tuple[bool, Any, str], ...]:
    """Of every field: whether it is a list, the entity it holds, else the kind of its values."""
    return tuple((_is_list(f.type), _nested(f.type), f.metadata.get("kafka_type", "")) for f in fields(schema))


def write_answer(request: Request, version: int, answer: Fields) -> bytes:
    """The answer's frame, its length in front. `version` differs from the request's when that one is unknown."""
    schema, write_header, write_body = _writers(request.api_key, version)
    pieces = _Pieces()
    write_header(pieces, _build(schema.__header_schema__, {"correlation_id": request.correlation_id}))
    write_body(pieces, _build(schema, answer))
    return b"".join([sum(map(len, pieces)).to_bytes(4, "big"), *pieces])


@cache
def _writers(api_key: int, version: int) -> tuple[Any, Callable[..., None], Callable[..., None]]:
    schema = load_response_schema(api_key, version)
    return schema, entity_writer(cast(Any, schema.__header_schema__)), entity_writer(schema)


def _build(entity: Any, answer: Fields) -> Any:
    values = {}
    for name, nested, default in _plan(entity):
        value = answer.get(name, default)
        values[name] = tuple(_build(nested, item) for item in value) if nested and value is not None else value
    return entity(**values)


@cache
def _plan(entity: Any) -> tuple[tuple[str, Any, Any], ...]:
    """Name, entity of the items (for a list of entities) and default of every field."""
    return tuple((field.name, _nested(field.type), _default(field)) for field in fields(entity))


def _nested(annotation: Any) -> Any:
    items = [get_args(option)[0] for option in _options(annotation) if get_origin(option) is tuple]
    return next((item for item in items if is_dataclass(item)), None)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(option) is tuple for option in _options(annotation))


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    if get_origin(field.type) is UnionType and NoneType in get_args(field.type):
        return None
    kinds = {"timedelta_i32": timedelta(0), "error_code": ErrorCode.none, "string": "", "bytes": b"", "bool": False}
    return () if get_origin(field.type) is tuple else kinds.get(field.metadata.get("kafka_type"), 0)
