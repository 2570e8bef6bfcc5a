"""Where a group's offsets could be moved to, what lies in between, and the move itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError

from bus.closing import close_consumer
from bus.connection import BROKEN, KafkaConnection
from bus.offset_fetch import heed_refusals
from contracts.errors import BusUnavailable, SupportError
from contracts.ports import Record

_TIMEOUT_S = 30.0
_POLL_MS = 200
_MEMBERS_THERE = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)

Target = Literal["earliest", "latest"] | datetime | Mapping[int, int]
"""Where to: an end, the first record written no earlier than a time, or an offset for each partition."""


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's way. `now` is the offset a worker would begin at."""

    partition: int
    begins: int  # of what the topic still holds
    ends: int
    now: int
    to: int


class Offsets:
    """A group's offsets on one topic, looked at from outside the group."""

    def __init__(self, consumer: AIOKafkaConsumer, group: str, topic: str) -> None:
        self._consumer = consumer
        self._group = group
        self._topic = topic

    async def moves(self, target: Target, partitions: Sequence[int] = ()) -> list[Move]:
        """The way of each partition, or of those named. Raises SupportError: it leads out of the topic."""
        known = sorted(self._consumer.partitions_for_topic(self._topic) or ())
        named = partitions or (sorted(target) if isinstance(target, Mapping) else known)
        if unknown := sorted(set(named) - set(known)):
            raise SupportError(f"{self._topic} has no partition {unknown[0]}; it has 0 to {len(known) - 1}")
        async with _bounded(self._topic):
            places = [TopicPartition(self._topic, one) for one in named]
            begins = await self._consumer.beginning_offsets(places)
            ends = await self._consumer.end_offsets(places)
            to = await self._targets(target, begins, ends)
            return [
                self._move(one, begins[one], ends[one], await self._consumer.committed(one), to[one]) for one in places
            ]

    async def between(self, moves: Sequence[Move]) -> AsyncIterator[Record]:
        """The records that a group moved so would read again, those of a partition in order."""
        until = {TopicPartition(self._topic, move.partition): move.now for move in moves if move.to < move.now}
        self._consumer.assign(list(until))
        for move in moves:
            if move.to < move.now:
                self._consumer.seek(TopicPartition(self._topic, move.partition), move.to)
        while unread := [one for one, end in until.items() if await self._position(one) < end]:
            async with _bounded(self._topic):
                found = await self._consumer.getmany(*unread, timeout_ms=_POLL_MS)
            for partition, records in found.items():
                for record in records:
                    if record.offset < until[partition]:
                        yield record

    async def commit(self, moves: Sequence[Move]) -> None:
        """Move the group. Raises SupportError: it has members, whose own commits would undo it; nothing is moved."""
        offsets = {TopicPartition(self._topic, move.partition): move.to for move in moves}
        self._consumer.assign(list(offsets))
        async with _bounded(self._topic):
            try:
                await self._consumer.commit(offsets)
            except _MEMBERS_THERE as error:
                raise SupportError(f"workers of {self._group} are in its group; they must leave it first") from error

    async def _position(self, partition: TopicPartition) -> int:
        async with _bounded(self._topic):
            return int(await self._consumer.position(partition))

    async def _targets(
        self, target: Target, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        if target == "earliest":
            return begins
        if target == "latest":
            return ends
        if isinstance(target, datetime):
            found = await self._consumer.offsets_for_times(dict.fromkeys(begins, int(target.timestamp() * 1000)))
            return {one: ends[one] if at is None else at.offset for one, at in found.items()}
        assert isinstance(target, Mapping)
        return {one: target[one.partition] for one in begins}

    def _move(self, place: TopicPartition, begins: int, ends: int, committed: int | None, to: int) -> Move:
        if not begins <= to <= ends:
            raise SupportError(
                f"offset {to} lies outside partition {place.partition} of {self._topic}, which holds {begins} to {ends}"
            )
        now = min(max(begins, committed or begins), ends)
        return Move(place.partition, begins, ends, now, to)


@contextlib.asynccontextmanager
async def offsets_of(connection: KafkaConnection, group: str, topic: str) -> AsyncIterator[Offsets]:
    """A group's offsets on a topic that exists. Raises BusUnavailable: no broker answers."""
    consumer = AIOKafkaConsumer(
        **connection.client_options(), group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        async with _bounded(topic):
            await consumer.start()
            heed_refusals(consumer)
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.end_offsets([TopicPartition(topic, 0)])
            await consumer._client.force_metadata_update()
        yield Offsets(consumer, group, topic)
    finally:
        await close_consumer(consumer)


@contextlib.asynccontextmanager
async def _bounded(topic: str) -> AsyncIterator[None]:
    with _our_errors(topic):
        async with asyncio.timeout(_TIMEOUT_S):
            yield


@contextlib.contextmanager
def _our_errors(topic: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise BusUnavailable(f"{topic} cannot be read: {type(error).__name__}") from error
