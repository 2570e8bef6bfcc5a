"""Lag that is true: which records of a topic a group has not finished, told from outside of the group."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bus.backlog import Backlog, begins_at
from bus.buried import Buried
from bus.codec import Codec
from bus.connection import BROKEN, KafkaConnection
from bus.groups import Group, Groups, groups
from bus.identity import Id, id_of
from bus.range_reader import Bounds, RangeReader, range_reader
from contracts.errors import Undecodable
from contracts.lag_ports import Asked, Place, ProgressStore, Queued
from contracts.topics import Topic, dead_letter_topic


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """What of a partition a group has not finished. `error`: why nothing is known of its records."""

    partition: int
    open: int = 0  # neither settled nor parked nor given up
    at_most: bool = False  # some of the open ones were counted by their offsets: there may be fewer
    waiting: int = 0  # parked, and tried again by themselves
    blocked: int = 0  # parked behind dead letters
    dead_letters: int = 0  # that stop their tickets
    oldest_ms: int | None = None  # the timestamp of the oldest that is open or waiting
    committed: int | None = None
    begin: int | None = None  # where a worker goes on
    bounds: Bounds | None = None
    error: str = ""

    @property
    def unfinished(self) -> int:
        """Records that are still to be handled, some of them once a person has freed them."""
        return self.open + self.waiting + self.blocked

    @property
    def raw(self) -> int | None:
        """What Kafka's own tools say: the log's end less the committed offset; None where nothing is committed."""
        return None if self.bounds is None or self.committed is None else self.bounds.high - self.committed


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group as it was at one moment, partition by partition."""

    group: Group
    partitions: Sequence[PartitionLag]
    letters_written: int  # records of the dead-letter topic


class LagReader:
    """Looks at one group and its topic, again and again: each look reads only what came since the last.

    Right whatever happens meanwhile, because of the order in which it asks: what was committed first, then where
    the topic ends, then the store. What is finished in between is found there.
    """

    def __init__(
        self,
        group: str,
        topic: Topic,
        kafka: Groups,
        records: RangeReader,
        letters: RangeReader,
        store: ProgressStore,
        codec: Codec,
    ) -> None:
        self._group = group
        self._topic = topic
        self._kafka = kafka
        self._records = records
        self._letters = letters
        self._store = store
        self._codec = codec
        self._backlogs: dict[int, Backlog] = {}
        self._buried = Buried(letters)
        self._topic_id: Id | None = None

    async def look(self) -> GroupLag:
        """The group's lag now. Raises BusUnavailable, StoreUnavailable. Misconfigured: the topic is missing."""
        partitions = await self._kafka.partitions(self._topic.name)
        committed = await self._kafka.committed(self._group, self._topic.name)
        group = await self._kafka.describe(self._group, self._topic.name)
        await self._notice_new_topic()
        bounds = await self._bounds(partitions)
        rows = {
            number: _row(number, committed.get(number), found if isinstance(found, Bounds) else None, found)
            for number, found in zip(partitions, bounds, strict=True)
        }
        await self._read(rows)
        asked = [record for backlog in self._backlogs.values() for record in backlog.open()]
        progress = await self._store.progress(self._group, self._topic.name, asked)
        for backlog in self._backlogs.values():
            backlog.finished(progress.handled)
        letters = await self._bury(rows, progress.parked)
        queues = {queued.partition: queued for queued in progress.queues}
        told = [self._told(rows[number], queues.get(number), progress.parked) for number in partitions]
        return GroupLag(group, told, letters)

    async def _notice_new_topic(self) -> None:
        """Forget all where the topic was made anew: its offsets are others."""
        with contextlib.suppress(*BROKEN):
            topic_id = await id_of(self._records.consumer, self._topic.name)
            if topic_id != self._topic_id:
                self._backlogs.clear()
            self._topic_id = topic_id

    async def _bounds(self, partitions: Sequence[int]) -> Sequence[Bounds | BaseException]:
        """Of each partition by itself: one without a leader spoils its own row."""
        found = await asyncio.gather(*map(self._records.bounds, partitions), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, BROKEN):
                raise one
        return found

    async def _read(self, rows: Mapping[int, PartitionLag]) -> None:
        begins, ends = {}, {}
        for number, row in rows.items():
            if row.bounds is None or row.begin is None:
                continue
            backlog = self._backlogs.setdefault(number, Backlog())
            backlog.move(row.begin, row.bounds.end)
            if not backlog.is_full:
                begins[number], ends[number] = backlog.read_to, row.bounds.end
        await self._records.read(begins, ends, self._take)

    def _take(self, partition: int, records: Sequence[Any], read_to: int) -> bool:
        backlog = self._backlogs[partition]
        backlog.take([self._asked(record) for record in records], read_to)
        return not backlog.is_full

    def _asked(self, record: Any) -> Asked:
        place = Place(record.partition, record.offset, record.timestamp)
        try:
            event = self._codec.decode(self._topic, record)
        except Undecodable:
            return Asked(*place, None, None)
        return Asked(*place, event.id, event.ticket_id)

    async def _bury(self, rows: Mapping[int, PartitionLag], parked: frozenset[Place]) -> int:
        """Forget what became a dead letter and stops no ticket; returns how many letters there are."""
        partitions = await self._kafka.partitions(dead_letter_topic(self._topic.name, self._group))
        if any(backlog.open(parked) for backlog in self._backlogs.values()):
            places = await self._buried.look(partitions)
            for backlog in self._backlogs.values():
                backlog.buried(places - parked)
            self._buried.forget_below({number: row.begin for number, row in rows.items() if row.begin is not None})
        found = await asyncio.gather(*map(self._letters.bounds, partitions), return_exceptions=True)
        return sum(one.end - one.start for one in found if isinstance(one, Bounds))

    def _told(self, row: PartitionLag, queued: Queued | None, parked: frozenset[Place]) -> PartitionLag:
        queued = queued or Queued(row.partition)
        row = replace(row, waiting=queued.waiting, blocked=queued.blocked, dead_letters=queued.dead_letters)
        if row.bounds is None:
            return replace(row, oldest_ms=queued.oldest_ms)
        backlog = self._backlogs[row.partition]
        known = backlog.open(parked)
        unread = max(0, row.bounds.end - backlog.read_to)
        times = [record.timestamp for record in known if record.timestamp > 0]
        times += [queued.oldest_ms] if queued.oldest_ms is not None else []
        return replace(row, open=len(known) + unread, at_most=unread > 0, oldest_ms=min(times, default=None))


def _row(partition: int, committed: int | None, bounds: Bounds | None, problem: Bounds | BaseException) -> PartitionLag:
    if bounds is None:
        return PartitionLag(partition, committed=committed, error=type(problem).__name__)
    begin = begins_at(committed, bounds.start, bounds.high)
    return PartitionLag(partition, committed=committed, begin=begin, bounds=bounds)


@contextlib.asynccontextmanager
async def lag_reader(
    connection: KafkaConnection, group: str, topic: Topic, store: ProgressStore, codec: Codec
) -> AsyncIterator[LagReader]:
    """Looks at a group. Raises BusUnavailable: Kafka cannot be reached. Misconfigured: a topic is missing."""
    letters = dead_letter_topic(topic.name, group)
    async with groups(connection) as kafka:
        for name in (topic.name, letters):
            await kafka.partitions(name)
        async with range_reader(connection, topic.name) as of_topic, range_reader(connection, letters) as of_letters:
            yield LagReader(group, topic, kafka, of_topic, of_letters, store, codec)
