"""Policies in versions: each load that changes something is a new one, and one of them is in force."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from contracts.shop import Passage, version_of
from state.documents import from_json, to_json
from state.pool import borrowed

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

_KEPT = 16  # versions held in memory, the ones read last
_SHOP = "INSERT INTO shops (shop_id) VALUES ($1) ON CONFLICT (shop_id) DO UPDATE SET shop_id = excluded.shop_id"
_VERSION = "INSERT INTO policy_versions (shop_id, version) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING version"
_IN_FORCE = "SELECT policy_version FROM shops WHERE shop_id = $1"
_PUT_IN_FORCE = "UPDATE shops SET policy_version = $2 WHERE shop_id = $1"
_PASSAGES = "SELECT document FROM policy_passages WHERE shop_id = $1 AND version = $2 ORDER BY position"
_VERSIONS = """
SELECT v.version, v.loaded_at, v.version IS NOT DISTINCT FROM shops.policy_version AS in_force,
       (SELECT count(*) FROM policy_passages AS p WHERE p.shop_id = v.shop_id AND p.version = v.version) AS passages
FROM policy_versions AS v JOIN shops USING (shop_id)
WHERE shop_id = $1
ORDER BY v.loaded_at DESC, v.version
"""
_VECTORS = """
SELECT passage_id, vector FROM policy_vectors
WHERE shop_id = $1 AND embedder = $2 AND passage_id = ANY ($3::text[])
"""
_KEEP_VECTORS = """
INSERT INTO policy_vectors (shop_id, embedder, passage_id, vector)
SELECT $1, $2, passage_id, vector FROM unnest($3::text[], $4::bytea[]) AS given (passage_id, vector)
ON CONFLICT DO NOTHING
"""


class Loaded(NamedTuple):
    """What a load came to: its version, and whether another one, or none, was in force before."""

    version: str
    changed: bool


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of a shop's policy."""

    version: str
    loaded_at: datetime  # for the first time
    passages: int
    in_force: bool


async def put_in_force(connection: "Connection", shop_id: str, passages: Sequence[Passage]) -> Loaded:
    """Store a policy as a version, unless it is one already, and put it in force. Call it in a transaction.

    The shop's own row is held until the end of the transaction, so a second loader waits.
    """
    version = version_of(passages)
    await connection.execute(_SHOP, shop_id)
    if await connection.fetchval(_VERSION, shop_id, version):
        records = [(shop_id, version, place, to_json(passage)) for place, passage in enumerate(passages)]
        columns = ("shop_id", "version", "position", "document")
        await connection.copy_records_to_table("policy_passages", records=records, columns=columns)
    before = await connection.fetchval(_IN_FORCE, shop_id)
    await connection.execute(_PUT_IN_FORCE, shop_id, version)
    return Loaded(version, before != version)


class PostgresPolicies:
    """Policies on a migrated database."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._read: dict[tuple[str, str], Sequence[Passage]] = {}  # a version never changes

    async def load(self, shop_id: str, passages: Sequence[Passage]) -> Loaded:
        """Put a policy in force, all at once; loading what is in force changes nothing.

        A policy that was in force before comes into force again, under its old version.
        """
        async with borrowed(self._pool) as connection, connection.transaction():
            return await put_in_force(connection, shop_id, passages)

    async def in_force(self, shop_id: str) -> str | None:
        """The version in force; None when none was loaded."""
        async with borrowed(self._pool) as connection:
            found: str | None = await connection.fetchval(_IN_FORCE, shop_id)
            return found

    async def versions(self, shop_id: str) -> Sequence[PolicyVersion]:
        """Every version there was, the one loaded last first."""
        async with borrowed(self._pool) as connection:
            return [PolicyVersion(**row) for row in await connection.fetch(_VERSIONS, shop_id)]

    async def passages(self, shop_id: str, version: str) -> Sequence[Passage]:
        """A version's passages in their order; empty when there is no such version."""
        found = self._read.pop((shop_id, version), ())
        if not found:
            async with borrowed(self._pool) as connection:
                rows = await connection.fetch(_PASSAGES, shop_id, version)
            found = tuple(from_json(Passage, row["document"]) for row in rows)
        if found:
            self._read[shop_id, version] = found
        while len(self._read) > _KEPT:
            del self._read[next(iter(self._read))]
        return found

    async def vectors(self, shop_id: str, embedder: str, passage_ids: Sequence[str]) -> Mapping[str, bytes]:
        """The vectors that are kept of these passages, each as float32, little-endian."""
        async with borrowed(self._pool) as connection:
            rows = await connection.fetch(_VECTORS, shop_id, embedder, passage_ids)
            return {row["passage_id"]: row["vector"] for row in rows}

    async def keep_vectors(self, shop_id: str, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keep vectors of passages by the passages' ids; the first one kept of a passage stays."""
        async with borrowed(self._pool) as connection:
            await connection.execute(_KEEP_VECTORS, shop_id, embedder, list(vectors), list(vectors.values()))


class MemoryPolicies:
    """Policies in memory, from those in force by their shops' ids."""

    def __init__(self, in_force: Mapping[str, Sequence[Passage]] | None = None) -> None:
        self._versions: dict[str, dict[str, tuple[datetime, Sequence[Passage]]]] = {}
        self._in_force: dict[str, str] = {}
        self._vectors: dict[tuple[str, str], dict[str, bytes]] = {}
        for shop_id, passages in (in_force or {}).items():
            self._load(shop_id, passages)

    async def load(self, shop_id: str, passages: Sequence[Passage]) -> Loaded:
        """Put a policy in force; see `PostgresPolicies`."""
        return self._load(shop_id, passages)

    async def in_force(self, shop_id: str) -> str | None:
        """The version in force; None when none was loaded."""
        return self._in_force.get(shop_id)

    async def versions(self, shop_id: str) -> Sequence[PolicyVersion]:
        """Every version there was, the one loaded last first."""
        found = reversed(self._versions.get(shop_id, {}).items())
        return [PolicyVersion(v, at, len(p), v == self._in_force[shop_id]) for v, (at, p) in found]

    async def passages(self, shop_id: str, version: str) -> Sequence[Passage]:
        """A version's passages in their order; empty when there is no such version."""
        return self._versions.get(shop_id, {}).get(version, (None, ()))[1]

    async def vectors(self, shop_id: str, embedder: str, passage_ids: Sequence[str]) -> Mapping[str, bytes]:
        """The vectors that are kept of these passages, each as float32, little-endian."""
        kept = self._vectors.get((shop_id, embedder), {})
        return {passage_id: kept[passage_id] for passage_id in passage_ids if passage_id in kept}

    async def keep_vectors(self, shop_id: str, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keep vectors of passages by the passages' ids; the first one kept of a passage stays."""
        kept = self._vectors.setdefault((shop_id, embedder), {})
        self._vectors[shop_id, embedder] = {**vectors, **kept}

    def _load(self, shop_id: str, passages: Sequence[Passage]) -> Loaded:
        version = version_of(passages)
        self._versions.setdefault(shop_id, {}).setdefault(version, (datetime.now(UTC), tuple(passages)))
        before = self._in_force.get(shop_id)
        self._in_force[shop_id] = version
        return Loaded(version, before != version)


Policies = PostgresPolicies | MemoryPolicies
