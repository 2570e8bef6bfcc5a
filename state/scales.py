"""Scales: how many workers each agent is to have, and how that came about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg

from contracts.control import Scale
from state.pool import borrowed

_DECIDE = """
INSERT INTO scale_decisions (agent, workers, decided_by, reason, inputs) VALUES ($1, $2, $3, $4, $5::text::jsonb)
"""

_WANTED = "SELECT DISTINCT ON (agent) agent, workers FROM scale_decisions ORDER BY agent, nth DESC"

_DECISIONS = """
SELECT agent, workers, decided_by, reason, inputs::text AS inputs, decided_at
FROM scale_decisions
WHERE $1::text IS NULL OR agent = $1
ORDER BY nth DESC
LIMIT $2
"""

_ADVISE = """
INSERT INTO scale_advice (agent, workers, decided_by, reason, inputs) VALUES ($1, $2, $3, $4, $5::text::jsonb)
ON CONFLICT (agent) DO UPDATE
SET workers = excluded.workers, decided_by = excluded.decided_by, reason = excluded.reason, inputs = excluded.inputs,
    decided_at = clock_timestamp()
"""

_ADVICE = """
SELECT agent, workers, decided_by, reason, inputs::text AS inputs, decided_at FROM scale_advice WHERE agent = $1
"""


@dataclass(frozen=True, slots=True)
class PostgresScales:
    """Scales on a migrated database."""

    pool: asyncpg.Pool

    async def decide(self, scale: Scale) -> None:
        """Keep a decision."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_DECIDE, *_row(scale))

    async def wanted(self) -> Mapping[str, int]:
        """How many workers each agent is to have."""
        async with borrowed(self.pool) as connection:
            return {row["agent"]: row["workers"] for row in await connection.fetch(_WANTED)}

    async def decisions(self, agent: str | None, *, limit: int) -> Sequence[Scale]:
        """The last decisions, newest first."""
        async with borrowed(self.pool) as connection:
            rows = await connection.fetch(_DECISIONS, agent, limit)
        return [_scale(row) for row in rows]

    async def advise(self, scale: Scale) -> None:
        """Keep what was found right for an agent."""
        async with borrowed(self.pool) as connection:
            await connection.execute(_ADVISE, *_row(scale))

    async def advice(self, agent: str) -> Scale | None:
        """What was found right for an agent last."""
        async with borrowed(self.pool) as connection:
            row = await connection.fetchrow(_ADVICE, agent)
        return None if row is None else _scale(row)


def _row(scale: Scale) -> tuple[object, ...]:
    return scale.agent, scale.workers, scale.by, scale.reason, json.dumps(scale.inputs)


def _scale(row: asyncpg.Record) -> Scale:
    return Scale(
        agent=row["agent"],
        workers=row["workers"],
        by=row["decided_by"],
        reason=row["reason"],
        inputs=json.loads(row["inputs"]),
        at=row["decided_at"],
    )


@dataclass(slots=True)
class MemoryScales:
    """Scales in memory."""

    _kept: list[Scale] = field(default_factory=list)
    _advice: dict[str, Scale] = field(default_factory=dict)

    async def decide(self, scale: Scale) -> None:
        """Keep a decision."""
        self._kept.append(replace(scale, at=datetime.now(UTC)))

    async def wanted(self) -> Mapping[str, int]:
        """How many workers each agent is to have."""
        return {scale.agent: scale.workers for scale in self._kept}

    async def decisions(self, agent: str | None, *, limit: int) -> Sequence[Scale]:
        """The last decisions, newest first."""
        return [scale for scale in reversed(self._kept) if agent in (None, scale.agent)][:limit]

    async def advise(self, scale: Scale) -> None:
        """Keep what was found right for an agent."""
        self._advice[scale.agent] = replace(scale, at=datetime.now(UTC))

    async def advice(self, agent: str) -> Scale | None:
        """What was found right for an agent last."""
        return self._advice.get(agent)
