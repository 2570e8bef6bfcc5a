"""Reading dead letters back from their topics, outside any consumer group, and what is put back of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import TypeAdapter, ValidationError

from bus.closing import close_consumer
from bus.connection import BROKEN, KafkaConnection
from contracts.errors import BusUnavailable
from contracts.events import DEFAULT_TENANT
from contracts.letters import REDRIVES_HEADER, Letter, Origin
from contracts.ports import Position, Record
from contracts.topics import Topic, dead_letter_topic
from contracts.values import Identifier

_TIMEOUT_S = 30.0
_POLL_MS = 200
_FIRST_OF_OURS = "kafka_dlt-original-topic"  # our headers stand behind those of the record, beginning with this
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_LATEST_MS = 253_402_300_799_000  # what a datetime can hold
_LARGEST_FETCH_BYTES = 4 * 1024 * 1024


class Original(NamedTuple):
    """A record as it was before it became a dead letter."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class LetterReader:
    """Reads one dead-letter topic, at positions of its own."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    async def records(self) -> AsyncIterator[Record]:
        """Every record there is now, those of a partition in order. Raises BusUnavailable: no broker has them."""
        with _our_errors(self._topic):
            ends = await self._ends()
            while unread := await self._unread(ends):
                async with asyncio.timeout(_TIMEOUT_S):
                    found = await self._consumer.getmany(*unread, timeout_ms=_POLL_MS)
                for partition, records in found.items():
                    for record in records:
                        if record.offset < ends[partition]:
                            yield record

    async def at(self, position: Position) -> Record | None:
        """The record at a position; None: it has expired. Raises BusUnavailable: no broker has it."""
        partition = TopicPartition(position.topic, position.partition)
        with _our_errors(self._topic):
            async with asyncio.timeout(_TIMEOUT_S):
                [begins] = (await self._consumer.beginning_offsets([partition])).values()
                [ends] = (await self._consumer.end_offsets([partition])).values()
                if not begins <= position.offset < ends:
                    return None
                self._consumer.seek(partition, position.offset)
                record: Record = await self._consumer.getone(partition)
        return record if record.offset == position.offset else None

    async def _ends(self) -> dict[TopicPartition, int]:
        """Where the partitions end; reading begins at their beginnings."""
        async with asyncio.timeout(_TIMEOUT_S):
            partitions = list(self._consumer.assignment())
            for partition, begins in (await self._consumer.beginning_offsets(partitions)).items():
                await self._consumer.position(partition)  # found in the background, it would undo the seek
                self._consumer.seek(partition, begins)
            return dict(await self._consumer.end_offsets(partitions))

    async def _unread(self, ends: dict[TopicPartition, int]) -> list[TopicPartition]:
        async with asyncio.timeout(_TIMEOUT_S):
            return [one for one, end in ends.items() if await self._consumer.position(one) < end]


@contextlib.asynccontextmanager
async def letter_reader(connection: KafkaConnection, topic: str) -> AsyncIterator[LetterReader]:
    """A reader of a dead-letter topic that exists. Raises BusUnavailable: no broker answers."""
    options: dict[str, Any] = {"auto_offset_reset": "earliest", "max_partition_fetch_bytes": _LARGEST_FETCH_BYTES}
    consumer = AIOKafkaConsumer(topic, **connection.client_options(), **options)
    try:
        with _our_errors(topic):
            async with asyncio.timeout(_TIMEOUT_S):
                await consumer.start()
        yield LetterReader(consumer, topic)
    finally:
        await close_consumer(consumer)


async def read_letters(connection: KafkaConnection, group: str, inbox: Topic) -> list[Letter]:
    """A group's dead letters that have not expired. Raises BusUnavailable."""
    async with letter_reader(connection, dead_letter_topic(inbox.name, group)) as reader:
        found = [letter_in(group, inbox.name, record) async for record in reader.records()]
    return merged([letter for letter in found if letter is not None])


def letter_in(group: str, topic: str, record: Record) -> Letter | None:
    """What a record of a group's dead-letter topic tells; None: no worker wrote it about a record of `topic`."""
    own = dict(_headers_behind(record))
    if _text(own.get(_FIRST_OF_OURS)) != topic:
        return None
    before = dict(record.headers[: _first_of_ours(record)])
    ticket_id, tenant_id = named_in(record)
    return Letter(
        group=group,
        origin=Origin(
            topic,
            _number(own.get("kafka_dlt-original-partition")),
            _number(own.get("kafka_dlt-original-offset")),
            _number(own.get("kafka_dlt-original-timestamp")),
        ),
        ticket_id=ticket_id,
        tenant_id=tenant_id,
        error=_class_name(own.get("kafka_dlt-exception-fqcn")),
        message=_text(own.get("kafka_dlt-exception-message")),
        attempts=_number(own.get("kafka_dlt-attempts")),
        failed_at=datetime.fromtimestamp(min(max(0, record.timestamp), _LATEST_MS) / 1000, UTC),
        cause=_class_name(own.get("kafka_dlt-exception-cause-fqcn")),
        trace_id=_text(own.get("kafka_dlt-trace-id")),
        put_back=max(0, _number(before.get(REDRIVES_HEADER), otherwise=0)),
        copies=(Position(record.topic, record.partition, record.offset),),
    )


def merged(copies: Sequence[Letter]) -> list[Letter]:
    """One letter for all copies of each, as it failed last; those that failed first come first."""
    by_id: dict[str, list[Letter]] = {}
    for copy in sorted(copies, key=lambda one: (one.failed_at, one.copies)):
        by_id.setdefault(copy.letter_id, []).append(copy)
    return [_last_of(same) for same in by_id.values()]


def original(record: Record, put_back: int) -> Original:
    """What is put back on the topic for the nth time: our headers are taken off, and their number is put on."""
    headers = [header for header in record.headers[: _first_of_ours(record)] if header[0] != REDRIVES_HEADER]
    topic = _text(dict(_headers_behind(record)).get(_FIRST_OF_OURS))
    return Original(topic, record.key, record.value, (*headers, (REDRIVES_HEADER, str(put_back).encode())))


def named_in(record: Record) -> tuple[str, str]:
    """The ticket and the tenant that a record is about; "" where it names none."""
    try:
        document = json.loads(record.value or b"")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return "", ""
    return _identifier(document.get("ticket_id")), _identifier(document.get("tenant_id", DEFAULT_TENANT))


def _identifier(given: object) -> str:
    try:
        text = _IDENTIFIER.validate_python(given, strict=True)
        text.encode()  # half characters are no text
    except (ValidationError, UnicodeEncodeError):
        return ""
    return text


def _first_of_ours(record: Record) -> int:
    """Where our headers begin: a record may bring the same names, before them."""
    places = [place for place, (name, _) in enumerate(record.headers) if name == _FIRST_OF_OURS]
    return places[-1] if places else len(record.headers)


def _headers_behind(record: Record) -> Sequence[tuple[str, bytes | None]]:
    return record.headers[_first_of_ours(record) :]


def _last_of(same: Sequence[Letter]) -> Letter:
    return replace(same[-1], copies=tuple(copy for one in same for copy in one.copies))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _class_name(value: bytes | None) -> str:
    return _text(value).rpartition(".")[2]


def _number(value: bytes | None, *, otherwise: int = -1) -> int:
    text = (value or b"").decode("ascii", "replace")
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and digits.isascii() and len(digits) < 19 else otherwise


@contextlib.contextmanager
def _our_errors(topic: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise BusUnavailable(f"{topic} cannot be read: {type(error).__name__}") from error
