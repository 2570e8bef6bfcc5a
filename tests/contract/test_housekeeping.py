"""What housekeeping deletes, what it never does, and that the tables stop growing."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from contracts.errors import Misconfigured
from contracts.ports import Position, Published
from contracts.topics import CATALOGUE
from state.housekeeping import LEAST_INBOX, PostgresHousekeeping, Pruned, Retention
from tests.contract.backends import on_postgres
from tests.contract.samples import OWNER, handled, loaded, must_settle, new_ticket, record, settlement

pytestmark = pytest.mark.postgres

KEEP = Retention()
BEYOND = timedelta(days=60)  # older than anything is kept

TABLES = ("inbox", "emitted", "journal")

_FILL = """
WITH inboxed AS (
    INSERT INTO inbox (group_name, event_id, type, ticket_id, topic, partition, kafka_offset, version, handled_at)
    SELECT 'triage', $1 || n, 'T', 'filler', 'topic', 0, n, 1, now() - $3::interval FROM generate_series(1, $2) AS n
), published AS (
    INSERT INTO emitted (id, event_id, type, ticket_id, topic, value, group_name, caused_by, created_at, published_at)
    SELECT n, $1 || n, 'T', 'filler', 'topic', 'value', 'triage', $1, now() - $3::interval, now() - $3::interval
    FROM generate_series(1, $2) AS n
)
INSERT INTO journal (event_id, step, request_digest, ticket_id, tenant_id, agent, result, kept_at)
SELECT $1 || n, 'ask', 'digest', 'filler', 'north', 'triage', 'result', now() - $3::interval
FROM generate_series(1, $2) AS n
"""


async def fill(pool: asyncpg.Pool, prefix: str, count: int, age: timedelta) -> None:
    """Put so many rows of that age into each table."""
    await pool.execute(_FILL, prefix, count, age)


async def counts(pool: asyncpg.Pool) -> dict[str, int]:
    return {table: await pool.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


async def blocks_read(pool: asyncpg.Pool) -> int:
    """Pages of the inbox looked at so far. One connection has done it all, and is idle."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    return int(
        await pool.fetchval("SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relname = 'inbox'")
    )


async def prune(housekeeping: PostgresHousekeeping, keep: Retention = KEEP) -> int:
    """Call until it is through; returns how often."""
    calls = 1
    while not (await housekeeping.prune(keep)).is_through:
        calls += 1
    return calls


async def test_what_is_old_is_deleted_and_what_is_young_stays(pool: asyncpg.Pool) -> None:
    await fill(pool, "old", 300, BEYOND)
    await fill(pool, "young", 200, KEEP.journal - timedelta(minutes=5))
    pruned = await PostgresHousekeeping(pool).prune(KEEP)
    assert pruned == Pruned(
        {"inbox": 300, "emitted": 300, "journal": 300, "model_calls": 0, "recordings": 0, "setbacks": 0, "leases": 0},
        is_through=True,
    )
    assert await counts(pool) == {"inbox": 200, "emitted": 200, "journal": 200}


async def test_each_table_has_its_own_retention(pool: asyncpg.Pool) -> None:
    keep = Retention(inbox=timedelta(days=50), emitted=timedelta(days=20), journal=timedelta(days=2))
    for days in (1, 10, 30, 55):
        await fill(pool, f"{days} ", 10, timedelta(days=days))
    await PostgresHousekeeping(pool).prune(keep)
    assert await counts(pool) == {"inbox": 30, "emitted": 20, "journal": 10}


async def test_an_unpublished_record_is_never_deleted_however_old(pool: asyncpg.Pool) -> None:
    backend = on_postgres(pool)
    step = settlement(new_ticket(), "e1", outgoing=[record("o1"), record("o2")])
    first, _ = (await must_settle(backend.stores.tickets, step)).records
    await backend.stores.outbox.mark_published([Published(first.outbox_id, Position("topic", 0, 0))])
    await pool.execute("UPDATE inbox SET handled_at = handled_at - interval '10 years'")
    await pool.execute("UPDATE emitted SET published_at = published_at - interval '10 years'")
    await pool.execute("UPDATE outbox SET created_at = created_at - interval '10 years'")
    await PostgresHousekeeping(pool).prune(KEEP)
    assert await handled(backend.stores.tickets, "e1") == set()
    told = await backend.timeline("t1")
    assert [entry.detail["event_id"] for entry in told] == ["o2"]
    assert (await loaded(backend.stores.tickets)).version == 1
    await backend.live(OWNER, "other", lease_s=15)
    await backend.let_pass(16)
    await backend.live("other")
    assert [row.record.event_id for row in await backend.stores.outbox.take_over("other", limit=10)] == ["o2"]


async def test_dead_leases_go_after_a_while_and_living_ones_stay(pool: asyncpg.Pool) -> None:
    backend = on_postgres(pool)
    await backend.live("long dead", "just dead", lease_s=10)
    await backend.let_pass(60)
    await backend.live("just dead", lease_s=10)
    await backend.live("living", lease_s=1e6)
    await backend.let_pass(KEEP.leases.total_seconds() - 30)
    assert (await PostgresHousekeeping(pool).prune(KEEP)).rows["leases"] == 1
    names = [row["owner"] for row in await pool.fetch("SELECT owner FROM leases ORDER BY owner")]
    assert names == ["just dead", "living"]


async def test_a_call_does_a_bounded_part_and_the_next_one_goes_on_from_there(pool: asyncpg.Pool) -> None:
    await fill(pool, "old", 3000, BEYOND)
    first = await PostgresHousekeeping(pool, pages=4, batches=2).prune(KEEP)
    assert not first.is_through
    assert 0 < first.rows["inbox"] < 3000
    second = await PostgresHousekeeping(pool, pages=4, batches=2).prune(KEEP)  # another process
    assert second.rows["inbox"] > 0
    assert await prune(PostgresHousekeeping(pool, pages=4, batches=2)) > 1
    assert await counts(pool) == {"inbox": 0, "emitted": 0, "journal": 0}


async def test_only_the_pages_of_a_batch_are_read(pool: asyncpg.Pool) -> None:
    await fill(pool, "young", 3000, timedelta())
    before = await blocks_read(pool)
    await PostgresHousekeeping(pool, pages=4, batches=1).prune(KEEP)
    assert await blocks_read(pool) - before == 4


async def test_two_at_once_share_the_work_or_leave_it_to_one(pool: asyncpg.Pool) -> None:
    await fill(pool, "old", 2000, BEYOND)
    await asyncio.gather(*(prune(PostgresHousekeeping(pool, pages=4)) for _ in range(4)))
    await prune(PostgresHousekeeping(pool))
    assert await counts(pool) == {"inbox": 0, "emitted": 0, "journal": 0}


async def test_a_table_that_somebody_sweeps_is_left_to_them(pool: asyncpg.Pool, postgres_dsn: str) -> None:
    await fill(pool, "old", 10, BEYOND)
    other = await asyncpg.connect(postgres_dsn)
    async with other.transaction():
        await other.execute("SELECT FROM housekeeping WHERE table_name = 'inbox' FOR UPDATE")
        pruned = await PostgresHousekeeping(pool).prune(KEEP)
    await other.close()
    assert pruned.rows == {
        "inbox": 0,
        "emitted": 10,
        "journal": 10,
        "model_calls": 0,
        "recordings": 0,
        "setbacks": 0,
        "leases": 0,
    }


async def test_the_tables_stop_growing(pool: asyncpg.Pool) -> None:
    """What is old when a round ends leaves its room to the rounds that follow."""
    await fill(pool, "young", 500, timedelta())
    sizes = []
    for n in range(8):
        await fill(pool, f"{n} ", 2000, BEYOND)
        sizes.append([await pool.fetchval("SELECT pg_total_relation_size($1::regclass)", table) for table in TABLES])
        await prune(PostgresHousekeeping(pool, pages=16))
        for table in TABLES:
            await pool.execute(f"VACUUM (TRUNCATE off) {table}")  # as autovacuum would
    assert await counts(pool) == dict.fromkeys(TABLES, 500)
    assert sizes[-1] == sizes[3]


def test_an_inbox_that_does_not_outlast_the_topics_is_refused() -> None:
    longest = max(topic.retention_ms for topic in CATALOGUE)
    assert timedelta(milliseconds=longest) < LEAST_INBOX
    assert Retention().inbox > LEAST_INBOX
    with pytest.raises(Misconfigured):
        Retention(inbox=LEAST_INBOX - timedelta(seconds=1))
