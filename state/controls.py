"""Controls: what ops ordered, and which workers there are."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from contracts.control import ControlOrder, Course, Mode, Presence, Seen
from contracts.events import Drain, Pause, Resume, SetConcurrency
from contracts.ports import absence_lease
from state.leases import HOLDER, MemoryLeases
from state.pool import borrowed

_GIVE = """
INSERT INTO control_orders (command_id, group_name, worker, kind, lanes, ordered_by, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (command_id) DO NOTHING
"""

_LAST_ORDERS = """
SELECT DISTINCT ON (kind = 'SetConcurrency') kind, lanes, ordered_by, reason
FROM control_orders
WHERE group_name = $1 AND (worker IS NULL OR worker = $2)
ORDER BY kind = 'SetConcurrency', nth DESC
"""

_REPORT = """
INSERT INTO workers (
    worker, group_name, version, host, process_id, mode, lanes, running, in_hand, settled_per_s, held_up, partitions
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (group_name, worker) DO UPDATE SET
    version = excluded.version, host = excluded.host, process_id = excluded.process_id, mode = excluded.mode,
    lanes = excluded.lanes, running = excluded.running, in_hand = excluded.in_hand,
    settled_per_s = excluded.settled_per_s, held_up = excluded.held_up, partitions = excluded.partitions,
    seen_at = excluded.seen_at
"""

_WORKERS = """
SELECT worker, group_name, version, host, process_id, mode, lanes, running, in_hand, settled_per_s, held_up, partitions,
       extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s
FROM workers
WHERE group_name = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)
ORDER BY worker
"""

# What workers that were killed left behind goes along.
_LEAVE = """
DELETE FROM workers
WHERE (group_name = $1 AND worker = $2) OR seen_at < clock_timestamp() - interval '1 day'
"""

_MODES = {Pause.__name__: Mode.PAUSED, Resume.__name__: Mode.RUNNING, Drain.__name__: Mode.DRAINED}


@dataclass(frozen=True, slots=True)
class PostgresControls:
    """Controls on a migrated database."""

    pool: asyncpg.Pool

    async def give(self, order: ControlOrder) -> None:
        """Keep an order; one that is known by its id changes nothing."""
        lanes = order.lanes if isinstance(order, SetConcurrency) else None
        about = (order.command_id, order.group, order.worker, order.type_name(), lanes, order.by, order.reason)
        async with borrowed(self.pool) as connection:
            await connection.execute(_GIVE, *about)

    async def course(self, group: str, worker: str) -> Course:
        """What a worker of a group is to do."""
        async with borrowed(self.pool) as connection:
            last = {row["kind"]: row for row in await connection.fetch(_LAST_ORDERS, group, worker)}
            away_for = await connection.fetchval(HOLDER, absence_lease(group))
        lanes = last.pop(SetConcurrency.__name__, None)
        mode = next(iter(last.values()), None)
        ordered = Course(
            mode=_MODES[mode["kind"]] if mode else Mode.RUNNING,
            lanes=lanes["lanes"] if lanes else None,
            by=mode["ordered_by"] if mode else "",
            reason=mode["reason"] if mode else "",
        )
        return _away(ordered, away_for)

    async def report(self, presence: Presence) -> None:
        """Note that a worker is there."""
        async with borrowed(self.pool) as connection:
            await connection.execute(
                _REPORT,
                presence.worker,
                presence.group,
                presence.version,
                presence.host,
                presence.process_id,
                presence.mode.value,
                presence.lanes,
                presence.running,
                presence.in_hand,
                presence.settled_per_s,
                presence.held_up,
                list(presence.partitions),
            )

    async def workers(self, group: str, *, within_s: float) -> Sequence[Seen]:
        """A group's workers that reported lately, by name."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_WORKERS, group, within_s)
        return [Seen(_presence(row), row["silent_s"]) for row in rows]

    async def leave(self, group: str, worker: str) -> None:
        """Note that a worker of a group ended."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_LEAVE, group, worker)


def _presence(row: asyncpg.Record) -> Presence:
    return Presence(
        worker=row["worker"],
        group=row["group_name"],
        version=row["version"],
        host=row["host"],
        process_id=row["process_id"],
        mode=Mode(row["mode"]),
        lanes=row["lanes"],
        running=row["running"],
        in_hand=row["in_hand"],
        settled_per_s=row["settled_per_s"],
        held_up=row["held_up"],
        partitions=tuple(row["partitions"]),
    )


@dataclass(slots=True)
class MemoryControls:
    """Controls in memory; `clock` counts seconds and stands for the database's."""

    clock: Callable[[], float] = time.monotonic
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    _orders: dict[str, ControlOrder] = field(default_factory=dict)
    _workers: dict[tuple[str, str], tuple[Presence, float]] = field(default_factory=dict)  # and when it was seen

    async def give(self, order: ControlOrder) -> None:
        """Keep an order; one that is known by its id changes nothing."""
        self._orders.setdefault(order.command_id, order)

    async def course(self, group: str, worker: str) -> Course:
        """What a worker of a group is to do."""
        course = Course()
        for order in self._orders.values():
            if order.group == group and order.worker in (None, worker):
                course = _after(course, order)
        return _away(course, self.leases.holder_now(absence_lease(group)))

    async def report(self, presence: Presence) -> None:
        """Note that a worker is there."""
        self._workers[presence.group, presence.worker] = (presence, self.clock())

    async def workers(self, group: str, *, within_s: float) -> Sequence[Seen]:
        """A group's workers that reported lately, by name."""
        now = self.clock()
        seen = [Seen(presence, now - at) for _, (presence, at) in sorted(self._workers.items())]
        return [one for one in seen if one.presence.group == group and one.silent_s < within_s]

    async def leave(self, group: str, worker: str) -> None:
        """Note that a worker of a group ended."""
        self._workers.pop((group, worker), None)


def _after(course: Course, order: ControlOrder) -> Course:
    if isinstance(order, SetConcurrency):
        return Course(course.mode, order.lanes, course.by, course.reason)
    return Course(_MODES[order.type_name()], course.lanes, order.by, order.reason)


def _away(ordered: Course, away_for: str | None) -> Course:
    """What was ordered, unless somebody has the group away."""
    return ordered if away_for is None else replace(ordered, mode=Mode.DRAINED, by=away_for, reason="its group is away")
