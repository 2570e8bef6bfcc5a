"""The book of rewinds: who moved a group's offsets, from where to where, and why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg

from contracts.rewinds import NotedRewind
from state.pool import borrowed

_BEGIN = """
INSERT INTO rewinds (group_name, topic, asked_by, reason, moves)
VALUES ($1, $2, $3, $4, $5)
RETURNING rewind_id
"""

_MOVED = "UPDATE rewinds SET moved_at = clock_timestamp() WHERE rewind_id = $1"

_LATEST = """
SELECT group_name, topic, asked_by, reason, moves, moved_at
FROM rewinds
ORDER BY rewind_id DESC
LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class PostgresRewinds:
    """The book on a migrated database."""

    pool: asyncpg.Pool

    async def begin(self, rewind: NotedRewind) -> int:
        """Note a rewind that is about to be done; returns its number."""
        moves = json.dumps(rewind.moves)
        async with borrowed(self.pool) as connection:
            number = await connection.fetchval(_BEGIN, rewind.group, rewind.topic, rewind.by, rewind.reason, moves)
        return int(number)

    async def moved(self, number: int) -> None:
        """Note that it was done."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_MOVED, number)

    async def latest(self, limit: int) -> Sequence[NotedRewind]:
        """Rewinds, the latest first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_LATEST, limit)
        return [
            NotedRewind(
                row["group_name"],
                row["topic"],
                row["asked_by"],
                row["reason"],
                _moves(json.loads(row["moves"])),
                row["moved_at"],
            )
            for row in rows
        ]


@dataclass(slots=True)
class MemoryRewinds:
    """The book in memory."""

    _rewinds: list[NotedRewind] = field(default_factory=list)

    async def begin(self, rewind: NotedRewind) -> int:
        """Note a rewind that is about to be done; returns its number."""
        self._rewinds.append(rewind)
        return len(self._rewinds) - 1

    async def moved(self, number: int) -> None:
        """Note that it was done."""
        self._rewinds[number] = replace(self._rewinds[number], moved_at=datetime.now(UTC))

    async def latest(self, limit: int) -> Sequence[NotedRewind]:
        """Rewinds, the latest first."""
        return self._rewinds[::-1][:limit]


def _moves(found: Mapping[str, Sequence[int]]) -> Mapping[int, tuple[int, int]]:
    return {int(partition): (begin, end) for partition, (begin, end) in found.items()}
