"""A shadow of the live tables: a schema of its own, and sessions whose role the database lets write nowhere else."""

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from contracts.errors import Misconfigured
from state.found import Found
from state.pool import as_our_errors, borrowed, open_connection, open_pool

ROLE = "switchyard_replay"
_PREFIX = "replay_"
_log = logging.getLogger(__name__)

# What a run writes. Everything else is read where it is.
_OWN = ("tickets", "inbox", "outbox", "emitted", "effects", "reviews", "recordings")
_THROWN_AWAY = {"synchronous_commit": "off"}  # a crash ends the replay: nothing needs to outlast it
_COPIED = ("shops", "shop_customers", "shop_orders", "shop_products", "policy_vectors")

_MAKE_ROLE = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
        CREATE ROLE {ROLE} NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
_TOO_STRONG = f"SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = '{ROLE}'"
_LEFT_BEHIND = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'replay\\_%'"

# What the earliest effect since then found, of each order and each customer.
_FOUND = """
SELECT e.tenant_id, e.order_id, e.user_id, r.reply
FROM effects AS e LEFT JOIN recordings AS r ON r.request_digest = 'effect/' || e.effect_key
WHERE e.applied_at >= $1 AND e.user_id IS NOT NULL
ORDER BY e.applied_at
"""
_PUT_ORDER = """
UPDATE shop_orders SET document = $3::jsonb, status = $3::jsonb ->> 'status' WHERE shop_id = $1 AND order_id = $2
"""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A schema, and pools of sessions that can write only there."""

    pool: asyncpg.Pool  # finds the shadow's tables first
    live: asyncpg.Pool  # finds the live ones
    schema: str
    not_put_back: int  # effects of which it is not known what they found


@asynccontextmanager
async def open_shadow(dsn: str, shop_of: Callable[[str], str], as_of: datetime) -> AsyncIterator[Shadow]:
    """A shadow with the shop's rows as they were then; dropped at the end.

    Raises Misconfigured: the login may not make the role or the schema.
    """
    schema = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    async with open_connection(dsn) as owner:
        try:
            live = await owner.fetchval("SELECT current_schema()")
            await _sweep(owner)
            await owner.execute("SELECT pg_advisory_lock(hashtext($1))", schema)
            await _make(owner, schema, live)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Misconfigured(
                f"a replay needs the role {ROLE} and a schema of its own, and this login may not make them "
                f"({error.args[0]}); "
                f"have an administrator run: CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO <login>; "
                "GRANT CREATE ON DATABASE <database> TO <login>"
            ) from error
        try:
            not_put_back = await _put_back(owner, schema, shop_of, as_of)
            async with (
                open_pool(
                    dsn, max_size=8, session=_THROWN_AWAY | {"role": ROLE, "search_path": f"{schema}, {live}"}
                ) as own,
                open_pool(dsn, max_size=4, session={"role": ROLE, "search_path": live}) as reading,
            ):
                yield Shadow(own, reading, schema, not_put_back)
        finally:
            with as_our_errors():
                await owner.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def _make(owner: asyncpg.Connection, schema: str, live: str) -> None:
    await owner.execute(_MAKE_ROLE)
    if await owner.fetchval(_TOO_STRONG):
        raise Misconfigured(f"the role {ROLE} is a superuser or bypasses row security: ALTER ROLE {ROLE} NOSUPERUSER")
    try:
        await owner.execute(f"SET ROLE {ROLE}; RESET ROLE")
    except asyncpg.InsufficientPrivilegeError:  # whoever makes a role may not always take it, but may say who does
        await owner.execute(f"GRANT {ROLE} TO CURRENT_USER")
    statements = [
        f"CREATE SCHEMA {schema}",
        f"GRANT USAGE ON SCHEMA {live} TO {ROLE}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {live} TO {ROLE}",
        *(f"CREATE UNLOGGED TABLE {schema}.{table} (LIKE {live}.{table} INCLUDING ALL)" for table in (*_OWN, *_COPIED)),
        *(f"INSERT INTO {schema}.{table} SELECT * FROM {live}.{table}" for table in _COPIED),
        f"GRANT USAGE ON SCHEMA {schema} TO {ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {ROLE}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {ROLE}",
        *(f"ANALYZE {schema}.{table}" for table in _COPIED),
    ]
    for statement in statements:
        await owner.execute(statement)


async def _sweep(owner: asyncpg.Connection) -> None:
    """Drop what replays left behind that were killed: nobody holds their locks."""
    for row in await owner.fetch(_LEFT_BEHIND):
        name = row["nspname"]
        if await owner.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", name):
            await owner.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
            await owner.execute("SELECT pg_advisory_unlock(hashtext($1))", name)
            _log.info("dropped the schema %s that a replay left behind", name)


async def _put_back(owner: asyncpg.Connection, schema: str, shop_of: Callable[[str], str], as_of: datetime) -> int:
    """Put orders and customers back to what they were; returns how many effects could not be undone."""
    unknown, seen = 0, set[tuple[str, str, str]]()
    for effect in await owner.fetch(_FOUND, as_of):
        if effect["reply"] is None:
            unknown += 1
            continue
        shop_id, found = shop_of(effect["tenant_id"]), Found.from_reply(effect["reply"])
        for table, column, key, document in found.rows(effect["order_id"], effect["user_id"]):
            if (shop_id, table, key) not in seen:
                seen.add((shop_id, table, key))
                statement = f"UPDATE {schema}.{table} SET document = $3 WHERE shop_id = $1 AND {column} = $2"
                await owner.execute(statement, shop_id, key, document)
    await owner.execute(f"UPDATE {schema}.shop_orders SET status = document ->> 'status'")
    return unknown


async def point_at_policy(shadow: asyncpg.Pool, shop_id: str, version: str) -> None:
    """Put a version of a shop's policy in force, in the shadow."""
    async with borrowed(shadow) as connection:
        await connection.execute("UPDATE shops SET policy_version = $2 WHERE shop_id = $1", shop_id, version)


async def put_order(shadow: asyncpg.Pool, shop_id: str, order_id: str, document: str) -> None:
    """Put an order as it was in the place of the shadow's."""
    async with borrowed(shadow) as connection:
        await connection.execute(_PUT_ORDER, shop_id, order_id, document)
