"""The journal of paid results: what a model answered is bought once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from contracts.models import CallContext
from state.pool import borrowed
from state.together import Together

_AT_ONCE = 200

_RECALL = """
SELECT journal.result
FROM ROWS FROM (
    unnest($1::text[], $2::text[], $3::text[]), generate_series(1, cardinality($1::text[]))
) AS asked (event_id, step, request_digest, place)
LEFT JOIN LATERAL (
    SELECT result
    FROM journal
    WHERE journal.event_id = asked.event_id AND journal.step = asked.step
      AND journal.request_digest = asked.request_digest
    OFFSET 0
) AS journal ON true
ORDER BY asked.place
"""

_Key = tuple[str, str, str]


class PostgresJournal:
    """Journal on a migrated database. What is asked at the same time shares a statement."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._recall: Together[_Key, bytes | None] = Together(self._recall_all, key=lambda key: key, limit=_AT_ONCE)

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The result kept under this key, if any."""
        return await self._recall((event_id, step, request_digest))

    async def _recall_all(self, keys: Sequence[_Key]) -> Sequence[bytes | None]:
        async with borrowed(self._pool) as connection:
            rows = await connection.fetch(_RECALL, *map(list, zip(*keys, strict=True)))
        return [row["result"] for row in rows]


@dataclass(frozen=True, slots=True)
class MemoryJournal:
    """Journal in memory."""

    _results: dict[tuple[str, str, str], bytes] = field(default_factory=dict)

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The result kept under this key, if any."""
        return self._results.get((event_id, step, request_digest))

    def entries(self) -> Sequence[tuple[tuple[str, str, str], bytes]]:
        """All of it: (event, step, digest of the request) and result."""
        return list(self._results.items())

    async def keep(self, call: CallContext, request_digest: str, result: bytes) -> None:
        """Keep a result; the first one kept under a key stays."""
        self._results.setdefault((call.event_id, call.step, request_digest), result)
