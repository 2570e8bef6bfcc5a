"""Recorded answers on PostgreSQL, by the digest of their request."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from contracts.model_ports import Nearest
from contracts.models import CallContext
from state.pool import borrowed
from state.together import Together

_AT_ONCE = 200

_FIND = "SELECT reply FROM recordings WHERE request_digest = $1"
_KEEP = """
INSERT INTO recordings (request_digest, ticket_id, tenant_id, agent, step, request, reply)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::json[], $7::bytea[])
ON CONFLICT (request_digest) DO NOTHING
"""
_NEAREST = """
(SELECT request, ticket_id, 0 AS rank, recorded_at FROM recordings
 WHERE ticket_id = $1 AND agent = $2 AND step = $3 ORDER BY recorded_at DESC LIMIT 1)
UNION ALL
(SELECT request, ticket_id, 1, recorded_at FROM recordings
 WHERE agent = $2 AND step = $3 ORDER BY recorded_at DESC LIMIT 1)
ORDER BY rank
LIMIT 1
"""


class PostgresRecordings:
    """Recordings on a migrated database. What is kept at the same time shares a statement."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._keep = Together(self._keep_all, key=lambda row: row[0], limit=_AT_ONCE)

    async def find(self, digest: str) -> bytes | None:
        """The answer to a request, if it was recorded."""
        async with borrowed(self._pool) as connection:
            reply = await connection.fetchval(_FIND, digest)
        return None if reply is None else bytes(reply)

    async def keep(self, digest: str, call: CallContext, request: Mapping[str, Any], reply: bytes) -> None:
        """Record an answer; the first one stays."""
        document = json.dumps(request)  # in ASCII: a lone surrogate stays what it is
        await self._keep((digest, call.ticket_id, call.tenant_id, call.agent, call.step, document, reply))

    async def nearest(self, call: CallContext) -> Nearest | None:
        """A recorded request of the same step: of the same ticket, else the latest of any."""
        async with borrowed(self._pool) as connection:
            row = await connection.fetchrow(_NEAREST, call.ticket_id, call.agent, call.step)
        return None if row is None else Nearest(json.loads(row["request"]), row["ticket_id"])

    async def _keep_all(self, rows: Sequence[tuple[object, ...]]) -> Sequence[None]:
        async with borrowed(self._pool) as connection:
            await connection.execute(_KEEP, *map(list, zip(*rows, strict=True)))
        return [None] * len(rows)


@dataclass(slots=True)
class MemoryRecordings:
    """Recordings in memory."""

    _kept: dict[str, tuple[CallContext, Mapping[str, Any], bytes]] = field(default_factory=dict)

    async def find(self, digest: str) -> bytes | None:
        """The answer to a request, if it was recorded."""
        return self._kept[digest][2] if digest in self._kept else None

    async def keep(self, digest: str, call: CallContext, request: Mapping[str, Any], reply: bytes) -> None:
        """Record an answer; the first one stays."""
        self._kept.setdefault(digest, (call, request, reply))

    async def nearest(self, call: CallContext) -> Nearest | None:
        """A recorded request of the same step: of the same ticket, else the latest of any."""
        same_step = [
            (other.ticket_id == call.ticket_id, place, Nearest(request, other.ticket_id))
            for place, (other, request, _) in enumerate(self._kept.values())
            if (other.agent, other.step) == (call.agent, call.step)
        ]
        return max(same_step, key=lambda one: one[:2])[2] if same_step else None
