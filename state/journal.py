"""The journal of paid results: what a model answered is bought once."""

from dataclasses import dataclass, field

import asyncpg

from contracts.models import CallContext
from state.pool import borrowed

_RECALL = "SELECT result FROM journal WHERE event_id = $1 AND step = $2 AND request_digest = $3"
_KEEP = """
INSERT INTO journal (event_id, step, request_digest, ticket_id, tenant_id, agent, result)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (event_id, step, request_digest) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class PostgresJournal:
    """Journal on a migrated database."""

    pool: asyncpg.Pool

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The result kept under this key, if any."""
        async with borrowed(self.pool) as connection:
            result = await connection.fetchval(_RECALL, event_id, step, request_digest)
        return None if result is None else bytes(result)

    async def keep(self, call: CallContext, request_digest: str, result: bytes) -> None:
        """Keep a result; the first one kept under a key stays."""
        key = (call.event_id, call.step, request_digest)
        async with borrowed(self.pool) as connection:
            await connection.execute(_KEEP, *key, call.ticket_id, call.tenant_id, call.agent, result)


@dataclass(frozen=True, slots=True)
class MemoryJournal:
    """Journal in memory."""

    _results: dict[tuple[str, str, str], bytes] = field(default_factory=dict)

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The result kept under this key, if any."""
        return self._results.get((event_id, step, request_digest))

    async def keep(self, call: CallContext, request_digest: str, result: bytes) -> None:
        """Keep a result; the first one kept under a key stays."""
        self._results.setdefault((call.event_id, call.step, request_digest), result)
