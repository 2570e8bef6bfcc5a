"""The book of tries at effects that others carry out: what was begun, is in doubt, done or refused."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg

from contracts.effect_ports import Begun, Busy, Done, First, InDoubt, Refused
from contracts.events import Command
from contracts.ports import EffectResult
from state.documents import to_json
from state.effects import KIND_OF_COMMAND, Effect, find_effect, note_effect, result_again
from state.pool import borrowed

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

_BEGIN = """
INSERT INTO effect_attempts AS known (effect_key, outlet, state, begun_at)
VALUES ($1, $2, 'begun', clock_timestamp())
ON CONFLICT (effect_key) DO UPDATE
SET outlet = excluded.outlet, state = 'begun', tries = known.tries + 1, begun_at = excluded.begun_at, ended_at = NULL
WHERE known.state = 'in_doubt'
   OR known.state = 'begun' AND known.begun_at <= excluded.begun_at - make_interval(secs => $3)
RETURNING tries
"""
_FOUND = """
SELECT state, note, extract(epoch FROM begun_at + make_interval(secs => $2) - clock_timestamp())::float8 AS wait_s
FROM effect_attempts WHERE effect_key = $1
"""
_DROP = "DELETE FROM effect_attempts WHERE effect_key = $1 AND state = 'begun'"
_END = """
UPDATE effect_attempts SET state = $2, note = $3, ended_at = clock_timestamp()
WHERE effect_key = $1 AND state IN ('begun', 'in_doubt')
"""


class PostgresAttempts:
    """Attempts on a migrated database. What is done stands in `effects` too, as the timeline tells it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def begin(self, command: Command, user_id: str | None, outlet: str, *, lease_s: float) -> Begun:
        """Note that a try begins, unless it is not ours to make; see the port."""
        async with borrowed(self._pool) as connection:
            while True:
                earlier = await find_effect(connection, command)
                if earlier is not None:
                    return Done(result_again(earlier, command, user_id))
                tries = await connection.fetchval(_BEGIN, command.effect_key, outlet, lease_s)
                if tries is not None:
                    return First() if tries == 1 else InDoubt()
                found = await self._found(connection, command.effect_key, lease_s)
                if found is not None:
                    return found  # else it was done, or dropped, just now

    async def drop(self, effect_key: str) -> None:
        """Note that a try had no effect, for certain."""
        async with borrowed(self._pool) as connection:
            await connection.execute(_DROP, effect_key)

    async def doubt(self, effect_key: str, why: str) -> None:
        """Note that nobody knows what came of a try."""
        await self._end(effect_key, "in_doubt", why)

    async def done(self, command: Command, user_id: str | None, result: EffectResult) -> None:
        """Note that the effect has happened; the first result stays."""
        async with borrowed(self._pool) as connection, connection.transaction():
            await note_effect(connection, command, _effect(command, user_id, result))
            await connection.execute(_END, command.effect_key, "done", "")

    async def refused(self, effect_key: str, why: str) -> None:
        """Note that the effect will not happen."""
        await self._end(effect_key, "refused", why)

    async def _end(self, effect_key: str, state: str, why: str) -> None:
        async with borrowed(self._pool) as connection:
            await connection.execute(_END, effect_key, state, why)

    async def _found(self, connection: "Connection", effect_key: str, lease_s: float) -> Begun | None:
        row = await connection.fetchrow(_FOUND, effect_key, lease_s)
        if row is None:
            return None
        match row["state"]:
            case "refused":
                return Refused(row["note"])
            case "begun":
                return Busy(max(0.0, row["wait_s"]))
        return None


@dataclass(slots=True)
class _Try:
    state: str
    begun_at: float
    note: str = ""


@dataclass(slots=True)
class MemoryAttempts:
    """Attempts in memory; `clock` counts seconds and stands for the database's."""

    clock: Callable[[], float] = time.monotonic
    _tries: dict[str, _Try] = field(default_factory=dict)
    _effects: dict[str, Effect] = field(default_factory=dict)

    async def begin(self, command: Command, user_id: str | None, outlet: str, *, lease_s: float) -> Begun:
        """Note that a try begins, unless it is not ours to make; see the port."""
        key, now = command.effect_key, self.clock()
        if key in self._effects:
            return Done(result_again(self._effects[key], command, user_id))
        known = self._tries.get(key)
        if known is not None and known.state == "refused":
            return Refused(known.note)
        if known is not None and known.state == "begun" and known.begun_at + lease_s > now:
            return Busy(known.begun_at + lease_s - now)
        self._tries[key] = _Try("begun", now)
        return InDoubt() if known else First()

    async def drop(self, effect_key: str) -> None:
        """Note that a try had no effect, for certain."""
        if self._is_open(effect_key, "begun"):
            del self._tries[effect_key]

    async def doubt(self, effect_key: str, why: str) -> None:
        """Note that nobody knows what came of a try."""
        self._end(effect_key, "in_doubt", why)

    async def done(self, command: Command, user_id: str | None, result: EffectResult) -> None:
        """Note that the effect has happened; the first result stays."""
        self._effects.setdefault(command.effect_key, _effect(command, user_id, result))
        self._end(command.effect_key, "done", "")

    async def refused(self, effect_key: str, why: str) -> None:
        """Note that the effect will not happen."""
        self._end(effect_key, "refused", why)

    def _end(self, effect_key: str, state: str, why: str) -> None:
        if self._is_open(effect_key, "begun", "in_doubt"):
            self._tries[effect_key].state, self._tries[effect_key].note = state, why

    def _is_open(self, effect_key: str, *states: str) -> bool:
        return effect_key in self._tries and self._tries[effect_key].state in states


def _effect(command: Command, user_id: str | None, result: EffectResult) -> Effect:
    return Effect(KIND_OF_COMMAND[type(command)], user_id, to_json(command), result)
