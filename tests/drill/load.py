"""What a run publishes: tickets with follow-ups, and everything a careless producer sends beside them."""

import asyncio
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from bus.closing import close_producer
from bus.connection import KafkaConnection
from tests.drill.ledger import Ledger
from tests.drill.script import COMMON, Script

ANSWERED, TIMED_OUT, EITHER, LETTER, BEHIND, IGNORED = (
    "answered",
    "timed out",
    "answered or timed out",
    "dead letter",
    "behind a dead letter",
    "ignored",
)
"""How a record must end. IGNORED: it is a duplicate, and nothing comes of it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record to publish. `partition` None: where its key belongs; `same_as_last`: where the one before it went."""

    ticket: str
    event: str
    ends: str
    value: bytes
    question: str = ""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    same_as_last: bool = False
    pause_s: float = 0.0  # before it


@dataclass
class Load:
    """Sequences of messages. Those of one sequence are published one after the other, each once it is acknowledged."""

    prefix: str  # of every ticket of the run
    rng: Random
    spread_s: float
    sequences: list[list[Message]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def new_ticket(self) -> str:
        """The name of a ticket that is not in use."""
        return f"{self.prefix}-{next(self._numbers)}"

    def message(self, ticket: str, script: Script | None = None, ends: str = ANSWERED, **more: Any) -> Message:
        """A customer's message, by default with a question of its own and no demands."""
        event = more.pop("event", None) or f"{ticket}.{uuid.UUID(int=self.rng.getrandbits(128)).hex}"
        headers = more.pop("headers", ())
        script = script or Script(self._question(event), wait_s=self.rng.choice((0, 0, 0.01, 0.1)))
        return Message(
            ticket,
            event,
            ends,
            _value(ticket, script),
            question=script.question,
            key=more.pop("key", ticket.encode()),
            headers=(("ce_id", event.encode()), *headers),
            **more,
        )

    def ordinary(self, count: int) -> None:
        """Tickets of one to four messages, some of which fail at first."""
        for _ in range(count):
            ticket = self.new_ticket()
            self.sequences.append([self._one_of(ticket) for _ in range(self.rng.choice((1, 1, 2, 3, 4)))])

    def _one_of(self, ticket: str) -> Message:
        pause_s = self.rng.uniform(0, self.spread_s / 2)
        if self.rng.random() < 0.05:
            return self.message(ticket, Script(f"flaky {ticket}", fails=self.rng.randint(1, 3)), pause_s=pause_s)
        return self.message(ticket, pause_s=pause_s)

    def _question(self, event: str) -> str:
        return f"{COMMON} {self.rng.randrange(20)}" if self.rng.random() < 0.3 else f"about {event}"

    def at_once(self, count: int, wait_s: float) -> None:
        """Many tickets at the same time, each of which takes a while."""
        for _ in range(count):
            ticket = self.new_ticket()
            self.sequences.append([self.message(ticket, Script(f"about {ticket}", wait_s=wait_s))])

    def duplicates(self, count: int) -> None:
        """The same id twice, on another partition, and with another body."""
        for _ in range(count):
            ticket = self.new_ticket()
            first, last = self.message(ticket), self.message(ticket)
            again = self._again(first, first.value)
            elsewhere = self._again(first, first.value, partition=self.rng.randrange(2))
            other = self._again(last, _value(ticket, Script("another body")), same_as_last=True)
            self.sequences.append([first, again, elsewhere, last, other])

    def _again(self, message: Message, value: bytes, **where: Any) -> Message:
        where = where or {"same_as_last": True}
        return Message(message.ticket, message.event, IGNORED, value, key=message.key, headers=message.headers, **where)

    def late(self, count: int) -> None:
        """Messages whose deadline is past, or soon to be."""
        for _ in range(count):
            ticket = self.new_ticket()
            past = self.message(ticket, ends=TIMED_OUT, headers=(("deadline", _in(-60)),))
            soon_at = self.rng.uniform(0.5, 3)
            soon = self.message(ticket, ends=EITHER, headers=(("deadline", _in(soon_at + self.spread_s)),))
            self.sequences.append([past, soon, self.message(ticket)])

    def cursed(self, count: int) -> None:
        """Tickets one of whose messages fails for good; what follows it waits behind the dead letter."""
        for _ in range(count):
            ticket = self.new_ticket()
            curse = self.message(ticket, Script("cursed", cursed=True), ends=LETTER)
            after = [self.message(ticket, ends=BEHIND) for _ in range(2)]
            self.sequences.append([self.message(ticket), curse, *after])

    def poison(self) -> None:
        """What no worker can read."""
        nested = b'{"a":' * 5000 + b"1" + b"}" * 5000
        version = (("ce_dataschema", b"urn:switchyard:TicketSubmitted:99"), ("ce_type", b"TicketSubmitted"))
        for value in (b"\x00\xff\xfe poison", b'{"ticket_id": "x", "body": "\xff"}', nested, b"", b"[]", b"null"):
            self._poison(value)
        self._poison(_value(self.new_ticket(), Script("wrong key")))
        name = self.new_ticket()
        self._poison(_value(name, Script("from the future")), version, key=name.encode())

    def _poison(self, value: bytes, headers: Sequence[tuple[str, bytes]] = (), key: bytes | None = None) -> None:
        name = self.new_ticket()
        key = key if key is not None else f"poison {name}".encode()
        self.sequences.append([Message(name, "", LETTER, value, key=key, headers=tuple(headers))])

    def letters_that_are_large(self, count: int) -> None:
        """Poison of some size."""
        for _ in range(count):
            self._poison(b"poison" * 3000)

    def header_bomb(self) -> None:
        """A thousand headers, and a body near the limit: both are handled."""
        ticket = self.new_ticket()
        headers = tuple((f"x-{n}", b"boom") for n in range(1000))
        large = Script("large", padding="x" * 900_000)
        self.sequences.append([self.message(ticket, headers=headers), self.message(ticket, large)])

    def without_key(self, count: int) -> None:
        """Messages without a key."""
        for _ in range(count):
            self.sequences.append([self.message(self.new_ticket(), key=None)])

    def hot_key(self, count: int) -> None:
        """One ticket that writes far more than all others together."""
        ticket = self.new_ticket()
        self.sequences.append([self.message(ticket, Script(f"hot {n} {ticket}")) for n in range(count)])

    def out_of_order(self, count: int) -> None:
        """Replies that come before the ticket they reply to."""
        for _ in range(count):
            ticket = self.new_ticket()
            reply = self.message(ticket, headers=(("ce_type", b"CustomerReplied"),))
            self.sequences.append([reply, self.message(ticket)])


def _value(ticket: str, script: Script) -> bytes:
    return json.dumps({"ticket_id": ticket, "from_email": f"{ticket}@drill.test", "body": script.body()}).encode()


def _in(seconds: float) -> bytes:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().encode()


@dataclass
class Desk:
    """Publishes a load, straight to Kafka, and writes down what was accepted: acknowledged by the broker."""

    connection: KafkaConnection
    topic: str
    ledger: Ledger
    skew_ms: int = 0  # of the records' own timestamps
    _producer: AIOKafkaProducer | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    accepted: int = 0
    refused: int = 0

    async def publish(self, sequences: Sequence[Sequence[Message]]) -> None:
        """Publish all; returns when everything is acknowledged."""
        await asyncio.gather(*(self._publish_one_by_one(sequence) for sequence in sequences))

    async def again(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Publish what lay on a topic once more, poison left out; the records are nobody's news."""
        for record in records:
            event = (dict(record.headers).get("ce_id") or b"").decode()
            if event:
                again = Message("", event, IGNORED, record.value, key=record.key, headers=tuple(record.headers))
                await self._until_acknowledged(again, record.partition)

    async def close(self) -> None:
        """Give the producer back."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)

    async def _publish_one_by_one(self, sequence: Sequence[Message]) -> None:
        last: int | None = None
        for nth, message in enumerate(sequence):
            await asyncio.sleep(message.pause_s)
            wanted = last if message.same_as_last else message.partition
            last, offset = await self._until_acknowledged(message, wanted)
            self.accepted += 1
            self.ledger.note(
                "accepted",
                ticket=message.ticket,
                event=message.event,
                ends=message.ends,
                question=message.question,
                nth=nth,
                place=[self.topic, last, offset],
            )

    async def _until_acknowledged(self, message: Message, partition: int | None) -> tuple[int, int]:
        while True:
            producer = None
            try:
                producer = await self._started()
                sent = await asyncio.wait_for(self._send(producer, message, partition), 5)
            except (KafkaError, TimeoutError, OSError):
                await self._drop(producer)
                await asyncio.sleep(0.2)
            else:
                return sent.partition, sent.offset

    async def _send(self, producer: AIOKafkaProducer, message: Message, partition: int | None) -> Any:
        stamp = None if not self.skew_ms else int(datetime.now(UTC).timestamp() * 1000) + self.skew_ms
        return await producer.send_and_wait(
            self.topic,
            message.value,
            key=message.key,
            headers=list(message.headers),
            partition=partition,
            timestamp_ms=stamp,
        )

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self.connection.client_options(), acks="all", max_request_size=4 << 20, request_timeout_ms=4000
                )
                try:
                    await asyncio.wait_for(producer.start(), 5)
                except (KafkaError, TimeoutError, OSError):
                    await close_producer(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self, producer: AIOKafkaProducer | None) -> None:
        async with self._lock:
            if producer is not None and producer is self._producer:
                self._producer = None
                with suppress(KafkaError, OSError):
                    await close_producer(producer)
