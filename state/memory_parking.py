"""Parked tickets in memory: the same promises, kept by doing each step without a pause."""

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contracts.letters import Blocked, Origin
from contracts.ports import ParkedRecord, Record


@dataclass(slots=True)
class _Parked:
    """A ticket's queue: the record it waits for, and those behind it."""

    parked_id: int
    record: Record
    attempts: int
    due_at: float | None  # by `clock`; None: a dead letter
    error: str
    failed_at: datetime
    followers: dict[Origin, tuple[int, Record]] = field(default_factory=dict)  # in order, each with its parked id


@dataclass(slots=True)
class MemoryParking:
    """Parking; `clock` counts seconds and stands for the database's."""

    clock: Callable[[], float] = time.monotonic
    _groups: dict[str, dict[str, _Parked]] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def park(
        self, group: str, ticket_id: str, record: Record, *, wait_s: float, attempts: int, error: str
    ) -> None:
        """Park a ticket behind a record that is to be tried again; see the port. A dead letter stays one."""
        self._enter(group, ticket_id, record, attempts, self.clock() + wait_s, error)

    async def block(self, group: str, ticket_id: str, record: Record, *, attempts: int, error: str) -> None:
        """Park a ticket behind a record that is a dead letter; see the port."""
        self._enter(group, ticket_id, record, attempts, None, error)

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        """Put records at the end of their tickets' queues, once each; see the port."""
        return [self._follow(group, ticket_id, record) for ticket_id, record in followers]

    async def due(
        self, group: str, *, within_s: float, limit: int, besides: Collection[int] = ()
    ) -> Sequence[ParkedRecord]:
        """The first records of queues that fall due within so many seconds, earliest first."""
        latest = self.clock() + within_s
        due = [
            (parked.due_at, parked.parked_id, ticket_id)
            for ticket_id, parked in self._tickets(group).items()
            if parked.due_at is not None and parked.due_at <= latest and parked.parked_id not in besides
        ]
        return [self._first(group, ticket_id) for _, _, ticket_id in sorted(due)[:limit]]

    async def release(self, group: str, ticket_id: str, parked_id: int) -> ParkedRecord | None:
        """Drop a first record that is settled, and move the next one up; see the port."""
        parked = self._tickets(group).get(ticket_id)
        if parked is None:
            return None
        if parked.parked_id == parked_id and not self._move_up(parked):
            del self._tickets(group)[ticket_id]
            return None
        return None if parked.due_at is None else self._first(group, ticket_id)

    def parked_of(self, group: str) -> Set[str]:
        """The ids of the tickets that are parked for the group, as they are whenever one looks."""
        return self._tickets(group).keys()

    def queued(self, group: str) -> Iterator[tuple[str, Record, bool, bool]]:
        """Every record that is parked for the group: its ticket, whether it is tried again, whether it is the first."""
        for ticket_id, parked in self._tickets(group).items():
            yield ticket_id, parked.record, parked.due_at is not None, True
            for _, record in parked.followers.values():
                yield ticket_id, record, parked.due_at is not None, False

    def blocked(self, group: str) -> Sequence[Blocked]:
        """The tickets that wait behind a dead letter, longest ago first."""
        blocked = [(ticket_id, one) for ticket_id, one in self._tickets(group).items() if one.due_at is None]
        found = [
            Blocked(
                one.parked_id,
                ticket_id,
                _origin(one.record),
                one.error,
                one.attempts,
                one.failed_at,
                len(one.followers),
            )
            for ticket_id, one in blocked
        ]
        return sorted(found, key=lambda one: (one.failed_at, one.parked_id))

    def kept(self, group: str, ticket_id: str, parked_id: int) -> Record | None:
        """The first record of a ticket's queue, if it has this id."""
        parked = self._tickets(group).get(ticket_id)
        return parked.record if parked is not None and parked.parked_id == parked_id else None

    def is_queued(self, group: str, ticket_id: str, origin: Origin) -> bool:
        """Whether a record is in the ticket's queue and no dead letter there."""
        parked = self._tickets(group).get(ticket_id)
        if parked is None:
            return False
        is_first = _origin(parked.record) == origin and parked.due_at is not None
        return is_first or origin in parked.followers

    def free(self, group: str, ticket_id: str, parked_id: int) -> None:
        """Make a dead letter due at once, with no try spent."""
        parked = self._tickets(group)[ticket_id]
        if parked.parked_id == parked_id:
            parked.attempts, parked.due_at = 0, self.clock()

    def _tickets(self, group: str) -> dict[str, _Parked]:
        return self._groups.setdefault(group, {})

    def _enter(
        self, group: str, ticket_id: str, record: Record, attempts: int, due_at: float | None, error: str
    ) -> None:
        parked, now = self._tickets(group).get(ticket_id), datetime.now(UTC)
        if parked is None:
            self._tickets(group)[ticket_id] = _Parked(next(self._ids), record, attempts, due_at, error, now)
        elif _origin(parked.record) != _origin(record):
            self._follow(group, ticket_id, record)
        elif parked.due_at is not None:
            parked.attempts, parked.due_at = max(parked.attempts, attempts), due_at
            parked.error, parked.failed_at = error, now

    def _follow(self, group: str, ticket_id: str, record: Record) -> bool:
        parked = self._tickets(group).get(ticket_id)
        if parked is None:
            return False
        if _origin(record) != _origin(parked.record) and _origin(record) not in parked.followers:
            parked.followers[_origin(record)] = (next(self._ids), record)
        return True

    def _move_up(self, parked: _Parked) -> bool:
        """Make the next record the first one, due at once; False when there is none."""
        if not parked.followers:
            return False
        first = next(iter(parked.followers))
        parked.parked_id, parked.record = parked.followers.pop(first)
        parked.attempts, parked.due_at, parked.error = 0, self.clock(), ""
        return True

    def _first(self, group: str, ticket_id: str) -> ParkedRecord:
        parked = self._tickets(group)[ticket_id]
        due_in_s = (parked.due_at or 0.0) - self.clock()
        return ParkedRecord(parked.parked_id, ticket_id, parked.record, parked.attempts, due_in_s)


def _origin(record: Record) -> Origin:
    return Origin(record.topic, record.partition, record.offset, record.timestamp)
