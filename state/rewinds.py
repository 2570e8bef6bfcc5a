"""The book of rewinds: who moved a group's offsets, from where to where, and why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg

from contracts.rewinds import Begun, NotedRewind
from state.pool import borrowed

_BEGIN = """
INSERT INTO rewinds (group_name, topic, asked_by, reason, moves, again)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING rewind_id
"""

_FIRST = """
SELECT min(rewind_id)
FROM rewinds
WHERE group_name = $1 AND again AND rewind_id > (
    SELECT COALESCE(max(rewind_id), 0) FROM rewinds WHERE group_name = $1 AND again AND moved_at IS NOT NULL
)
"""

_MOVED = "UPDATE rewinds SET moved_at = clock_timestamp(), rounds = $2 WHERE rewind_id = $1"

_LATEST = """
SELECT group_name, topic, asked_by, reason, moves, again, rounds, begun_at, moved_at
FROM rewinds
ORDER BY rewind_id DESC
LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class PostgresRewinds:
    """The book on a migrated database."""

    pool: asyncpg.Pool

    async def begin(self, rewind: NotedRewind) -> Begun:
        """Note a rewind that is about to be done; see the port."""
        about = (rewind.group, rewind.topic, rewind.by, rewind.reason, json.dumps(rewind.moves), rewind.again)
        async with borrowed(self.pool) as connection:
            number = int(await connection.fetchval(_BEGIN, *about))
            first = int(await connection.fetchval(_FIRST, rewind.group)) if rewind.again else number
        return Begun(number, first)

    async def moved(self, number: int, rounds: Mapping[str, int]) -> None:
        """Note that it was done; see the port."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_MOVED, number, json.dumps(rounds))

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
                row["again"],
                json.loads(row["rounds"]),
                row["begun_at"],
                row["moved_at"],
            )
            for row in rows
        ]


@dataclass(slots=True)
class MemoryRewinds:
    """The book in memory."""

    _rewinds: list[NotedRewind] = field(default_factory=list)

    async def begin(self, rewind: NotedRewind) -> Begun:
        """Note a rewind that is about to be done; see the port."""
        self._rewinds.append(replace(rewind, begun_at=datetime.now(UTC)))
        number = first = len(self._rewinds) - 1
        for earlier, one in reversed(list(enumerate(self._rewinds))):
            if rewind.again and one.again and one.group == rewind.group:
                if one.moved_at is not None:
                    break
                first = earlier
        return Begun(number, first)

    async def moved(self, number: int, rounds: Mapping[str, int]) -> None:
        """Note that it was done; see the port."""
        self._rewinds[number] = replace(self._rewinds[number], rounds=dict(rounds), moved_at=datetime.now(UTC))

    async def latest(self, limit: int) -> Sequence[NotedRewind]:
        """Rewinds, the latest first."""
        return self._rewinds[::-1][:limit]


def _moves(found: Mapping[str, Sequence[int]]) -> Mapping[int, tuple[int, int]]:
    return {int(partition): (begin, end) for partition, (begin, end) in found.items()}
