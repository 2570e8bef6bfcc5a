"""Rewinding a group: what it would handle again, what the inbox drops of that, and the move."""

import contextlib
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from bus.codec import Codec
from bus.lease import Lease
from bus.rewinding import Move, Offsets, Target, offsets_of
from contracts.errors import SupportError, Undecodable
from contracts.ports import Leases, Record, TicketStore, Wanted
from contracts.rewinds import NotedRewind, Rewinds
from contracts.topics import Topic
from ops.moments import moment
from ops.settings import Settings
from ops.wiring import INBOXES, database, kafka_connection
from state.leases import PostgresLeases
from state.postgres_tickets import PostgresTickets
from state.rewinds import PostgresRewinds

_AT_ONCE = 500  # records in one look-up
_LEASE_S = 60.0
_OFFSETS = re.compile(r"\d+:\d+(,\d+:\d+)*")


class Absence(Protocol):
    """A way to have workers leave their group for a moment: while it has members, nobody else moves its offsets."""

    def of(self, group: str) -> contextlib.AbstractAsyncContextManager[None]:
        """The group's workers are out of it while one is inside, and return afterwards."""


class Unattended:
    """Leaves workers where they are: Kafka refuses to move a group that has any."""

    @contextlib.asynccontextmanager
    async def of(self, group: str) -> AsyncIterator[None]:
        """Do nothing."""
        yield


@dataclass(frozen=True, slots=True)
class Outlook:
    """What lies between the old offsets and the new ones. Going back: counts of records. Ahead: what is skipped."""

    dropped: int = 0  # the inbox knows their events: one look-up each, no effect, no model call
    queued: int = 0  # their tickets are parked: they are in that queue, or join it
    anew: int = 0  # nobody has settled them: they are handled
    unreadable: int = 0  # they become dead letters again
    skipped: int = 0  # offsets that nobody will read


@dataclass(frozen=True, slots=True)
class Rewound:
    """A rewind, done or only told."""

    group: str
    topic: str
    moves: Sequence[Move]
    outlook: Outlook
    moved: bool


@dataclass(frozen=True, slots=True)
class Rewinding:
    """Moves one group on the topic it reads."""

    offsets: Offsets
    group: str
    topic: Topic
    tickets: TicketStore
    leases: Leases
    absence: Absence
    codec: Codec
    book: Rewinds

    async def told(self, target: Target, partitions: Sequence[int] = ()) -> Rewound:
        """What a rewind would do; nothing is changed."""
        moves = await self.offsets.moves(target, partitions)
        return Rewound(self.group, self.topic.name, moves, await self._outlook(moves), moved=False)

    async def done(self, target: Target, partitions: Sequence[int] = (), *, by: str, reason: str = "") -> Rewound:
        """Rewind while the group's workers are out of it, and note who asked for it. Safe to repeat.

        Raises SupportError: the group is being rewound already, or workers stay in it; nothing is moved.
        """
        lease = Lease(self.leases, f"rewind/{self.group}", str(uuid.uuid4()), lease_s=_LEASE_S)
        if not await lease.held():
            raise SupportError(f"somebody rewinds {self.group} already; try again once that is done")
        try:
            async with self.absence.of(self.group):
                moves = await self.offsets.moves(target, partitions)
                outlook = await self._outlook(moves)
                ways = {move.partition: (move.now, move.to) for move in moves}
                number = await self.book.begin(NotedRewind(self.group, self.topic.name, by, reason, ways))
                await self.offsets.commit(moves)
                await self.book.moved(number)
        finally:
            await lease.give_back()
        return Rewound(self.group, self.topic.name, moves, outlook, moved=True)

    async def _outlook(self, moves: Sequence[Move]) -> Outlook:
        counts = Counter(skipped=sum(max(0, move.to - move.now) for move in moves))
        batch: list[Record] = []
        async for record in self.offsets.between(moves):
            batch.append(record)
            if len(batch) == _AT_ONCE:
                counts += await self._looked_up(batch)
                batch = []
        counts += await self._looked_up(batch)
        return Outlook(**counts)

    async def _looked_up(self, records: Sequence[Record]) -> Counter[str]:
        counts, wanted = Counter[str](), []
        for record in records:
            try:
                event = self.codec.decode(self.topic, record)
            except Undecodable:
                counts["unreadable"] += 1
            else:
                wanted.append(Wanted(event.id, event.ticket_id, with_ticket=False))
        known = await self.tickets.look_up(self.group, wanted)
        for one in wanted:
            parked = "queued" if one.ticket_id in known.parked else "anew"
            counts["dropped" if one.event_id in known.handled else parked] += 1
        return counts


@contextlib.asynccontextmanager
async def rewinding(group: str, settings: Settings) -> AsyncIterator[Rewinding]:
    """What rewinds an agent's group. Raises SupportError: there is no such agent."""
    topic, codec = groups_topic(group), Codec(settings.agents.default_deadline)
    async with database(settings) as pool, offsets_of(kafka_connection(settings.kafka), group, topic.name) as offsets:
        yield Rewinding(
            offsets,
            group,
            topic,
            PostgresTickets(pool),
            PostgresLeases(pool),
            Unattended(),
            codec,
            PostgresRewinds(pool),
        )


def groups_topic(group: str) -> Topic:
    """The topic an agent's group reads. Raises SupportError: there is no such agent."""
    if group not in INBOXES:
        raise SupportError(f"there is no agent {group!r}; the agents are {', '.join(INBOXES)}")
    return INBOXES[group]


def target_of(given: str, topic: Topic, *, now: datetime) -> Target:
    """Where to: earliest, latest, PARTITION:OFFSET,…, a time, or how long ago. Raises SupportError: none of these."""
    text = given.strip()
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if _OFFSETS.fullmatch(text):
        return {int(one): int(offset) for one, _, offset in (pair.partition(":") for pair in text.split(","))}
    at, kept = moment(text, now=now), timedelta(milliseconds=topic.retention_ms)
    if at > now:
        raise SupportError(f"{given} has not come yet; `--to latest` is as far as it goes")
    if at < now - kept:
        raise SupportError(f"{topic.name} keeps {kept.days} days; `--to earliest` is as far back as it goes")
    return at
