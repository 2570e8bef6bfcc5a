"""Rewinding a group: what it would handle again, what the inbox drops of that, and the move."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.codec import Codec
from bus.rewinding import Move, Offsets, Target, offsets_of
from contracts.errors import SupportError, Undecodable
from contracts.letter_ports import LetterBook
from contracts.ports import Leases, Record, TicketStore, Wanted
from contracts.rewinds import NotedRewind, Rewinds
from contracts.topics import Topic
from ops.moments import by_partition, moment
from ops.service.absence import SentAway
from ops.service.anew import Anew, in_batches, require_decides
from ops.service.exclusion import rewinding_alone
from ops.settings import Settings
from ops.wiring import INBOXES, agents_named, database, kafka_connection, wired
from state.controls import PostgresControls
from state.leases import PostgresLeases
from state.letters import PostgresLetterBook
from state.postgres_tickets import PostgresTickets
from state.rewinds import PostgresRewinds

_LISTED = 100
_TO_LEAVE_S = 20.0  # beyond the drain time-out: for workers to hear of it, and for Kafka to give up on those that died


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
    workers: Sequence[str]  # that are sent away for it
    rounds: Mapping[str, int] | None  # what becomes of those that were handled; None: nothing
    moved: bool


@dataclass(frozen=True, slots=True)
class Rewinding:
    """Moves one group on the topic it reads."""

    offsets: Offsets
    group: str
    topic: Topic
    tickets: TicketStore
    leases: Leases
    absence: SentAway
    codec: Codec
    book: Rewinds
    letters: LetterBook

    async def told(self, target: Target, partitions: Sequence[int] = (), *, again: bool = False) -> Rewound:
        """What a rewind would do; nothing is changed."""
        anew = self._anew() if again else None
        moves = await self.offsets.moves(target, partitions)
        outlook, workers = await self._outlook(moves), await self.workers()
        rounds = await anew.counted(self.offsets.between(moves)) if anew else None
        return Rewound(self.group, self.topic.name, moves, outlook, workers, rounds, moved=False)

    async def done(
        self, target: Target, partitions: Sequence[int] = (), *, by: str, reason: str = "", again: bool = False
    ) -> Rewound:
        """Rewind while the group's workers are out of it, and note who asked for it. Safe to repeat.

        `again`: the agent decides anew what it has handled in between.
        Raises SupportError: the group is being rewound already, somebody acts on its dead letters, or workers stay in
        it; nothing is moved.
        """
        anew = self._anew() if again else None
        async with rewinding_alone(self.leases, self.letters, self.group, by):
            outlook, workers = await self._outlook(await self.offsets.moves(target, partitions)), await self.workers()
            async with self.absence.of(self.group, by):
                moves = await self.offsets.moves(target, partitions)
                ways = {move.partition: (move.now, move.to) for move in moves}
                begun = await self.book.begin(NotedRewind(self.group, self.topic.name, by, reason, ways, again))
                # Before the move: should this be interrupted, the same records are found again.
                rounds = await anew.given_back(self.offsets.between(moves), begun.first) if anew else None
                await self.offsets.commit(moves)
                await self.book.moved(begun.number, rounds or {})
        return Rewound(self.group, self.topic.name, moves, outlook, workers, rounds, moved=True)

    async def workers(self) -> Sequence[str]:
        """The workers that a rewind sends away, by name."""
        return await self.absence.who(self.group)

    def _anew(self) -> Anew:
        require_decides(self.group)
        return Anew(self.group, self.topic, self.tickets, self.codec)

    async def _outlook(self, moves: Sequence[Move]) -> Outlook:
        counts = Counter(skipped=sum(max(0, move.to - move.now) for move in moves))
        async for batch in in_batches(self.offsets.between(moves)):
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
    """What rewinds an agent's group. Raises Misconfigured: there is no such agent."""
    topic, connection = wired(group).reads, kafka_connection(settings.kafka)
    limit_s = settings.agents.drain_timeout_s + _TO_LEAVE_S
    async with database(settings) as pool, offsets_of(connection, group, topic.name) as offsets:
        leases = PostgresLeases(pool)
        yield Rewinding(
            offsets=offsets,
            group=group,
            topic=topic,
            tickets=PostgresTickets(pool),
            leases=leases,
            absence=SentAway(PostgresControls(pool), leases, connection, INBOXES, limit_s),
            codec=Codec(settings.agents.default_deadline),
            book=PostgresRewinds(pool),
            letters=PostgresLetterBook(pool),
        )


async def past_rewinds(agent: str | None, settings: Settings) -> Sequence[NotedRewind]:
    """Who moved which group and why, the latest first; those of an agent, or of all. At most 100 are looked through.

    Raises Misconfigured: there is no such agent. StoreUnavailable.
    """
    groups = agents_named(agent)
    async with database(settings) as pool:
        return [one for one in await PostgresRewinds(pool).latest(_LISTED) if one.group in groups]


def target_of(given: str, topic: Topic, *, now: datetime) -> Target:
    """Where to: earliest, latest, PARTITION:OFFSET,…, a time, or how long ago. Raises SupportError: none of these."""
    text = given.strip()
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if (offsets := by_partition(text)) is not None:
        return offsets
    at, kept = moment(text, now=now), timedelta(milliseconds=topic.retention_ms)
    if at > now:
        raise SupportError(f"{given} has not come yet; `--to latest` is as far as it goes")
    if at < now - kept:
        raise SupportError(f"{topic.name} keeps {kept.days} days; `--to earliest` is as far back as it goes")
    return at
