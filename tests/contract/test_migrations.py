"""What the migrations promise on every PostgreSQL, and what the pool does about a bad address or a frozen server."""

import asyncio
import base64
import json
import shutil
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from contracts.errors import Misconfigured, StoreUnavailable
from contracts.ports import worker_lease
from contracts.ticket import Desk
from state import pool as pool_module
from state.migrate import DIRECTORY, migrate
from state.pool import as_our_errors, borrowed, open_pool
from state.postgres_tickets import PostgresTickets
from state.stores import postgres_stores
from tests.contract.backends import until
from tests.contract.cable import cable_to
from tests.contract.samples import OWNER, loaded, must_settle, new_ticket, record, settlement
from tests.services.postgres import Postgres

pytestmark = pytest.mark.postgres

EVERY_NAME = [path.stem for path in sorted(DIRECTORY.glob("*.sql"))]


@pytest.fixture
async def connection(postgres_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the migrations to tamper with."""
    return Path(shutil.copytree(DIRECTORY, tmp_path / "migrations"))


async def tables(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}


async def test_migrating_twice_applies_each_once(postgres_dsn: str, connection: asyncpg.Connection) -> None:
    assert await migrate(postgres_dsn) == EVERY_NAME
    assert await migrate(postgres_dsn) == []
    assert await migrate(connection) == []
    assert {"tickets", "inbox", "outbox", "journal", "effects", "shop_orders"} <= await tables(connection)


async def test_ten_starters_at_once_apply_each_once(postgres_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(postgres_dsn) for _ in range(10)))
    assert sorted(applied, key=len, reverse=True) == [EVERY_NAME, *[[]] * 9]


async def test_a_new_file_is_applied_to_a_database_in_use(postgres_dsn: str, directory: Path) -> None:
    await migrate(postgres_dsn)
    new = f"{len(EVERY_NAME) + 1:04}_more"
    (directory / f"{new}.sql").write_text("CREATE TABLE more (id int); INSERT INTO more VALUES (1)")
    assert await migrate(postgres_dsn, directory) == [new]


async def test_a_migration_that_fails_half_way_leaves_nothing_of_itself(
    postgres_dsn: str, connection: asyncpg.Connection, directory: Path
) -> None:
    broken = directory / f"{len(EVERY_NAME) + 1:04}_broken.sql"
    broken.write_text("CREATE TABLE half (id int); SELECT 1/0;")
    for _ in range(2):
        with pytest.raises(Misconfigured, match=broken.stem):
            await migrate(postgres_dsn, directory)
    assert "half" not in await tables(connection)
    assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == len(EVERY_NAME)
    broken.write_text("CREATE TABLE whole (id int)")
    assert await migrate(postgres_dsn, directory) == [broken.stem]


async def test_a_file_changed_after_it_was_applied_is_refused(postgres_dsn: str, directory: Path) -> None:
    await migrate(postgres_dsn)
    changed = directory / f"{EVERY_NAME[1]}.sql"
    changed.write_text(changed.read_text() + "-- a harmless remark\n")
    with pytest.raises(Misconfigured, match=f"{EVERY_NAME[1]} is not the one applied"):
        await migrate(postgres_dsn, directory)


async def test_other_line_ends_are_no_change(postgres_dsn: str, directory: Path) -> None:
    await migrate(postgres_dsn)
    for name in EVERY_NAME:
        path = directory / f"{name}.sql"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert await migrate(postgres_dsn, directory) == []


async def test_a_gap_in_the_database_is_refused(
    postgres_dsn: str, connection: asyncpg.Connection, directory: Path
) -> None:
    await migrate(postgres_dsn)
    await connection.execute("DELETE FROM schema_migrations WHERE number = 2")
    with pytest.raises(Misconfigured, match="lacks migration 0002"):
        await migrate(postgres_dsn)


async def test_a_database_ahead_of_the_code_is_left_as_it_is(postgres_dsn: str, directory: Path) -> None:
    await migrate(postgres_dsn)
    (directory / f"{EVERY_NAME[-1]}.sql").unlink()
    assert await migrate(postgres_dsn, directory) == []


_OLD_TICKET = """
INSERT INTO tickets (ticket_id, tenant_id, version, status, round, state) VALUES ($1, $2, $3, 'triage', 1, $4::jsonb)
"""
_OLD_OUTBOX_ROW = """
INSERT INTO outbox (event_id, type, ticket_id, topic, value, headers, group_name, caused_by, published_at, partition,
                    kafka_offset)
VALUES ($1, 'T', 't1', $2, $3, $4::jsonb, 'triage', 'e1', $5, $6::integer, $6::integer)
"""


def before_the_engine(directory: Path) -> Path:
    for path in directory.glob("*.sql"):
        if path.name > "0005":
            path.unlink()
    return directory


async def test_a_database_of_before_the_engine_comes_along_with_its_data(
    postgres_dsn: str, connection: asyncpg.Connection, directory: Path
) -> None:
    now = datetime.now(UTC)
    await migrate(postgres_dsn, before_the_engine(directory))
    late = settlement(new_ticket(), "e1").ticket
    late = late.with_round(late.rounds[0].model_copy(update={"deadline": now - timedelta(minutes=1)}))
    closed = late.model_copy(update={"ticket_id": "t2"})
    closed = closed.with_round(closed.rounds[0].model_copy(update={"desk": Desk.CLOSED}))
    for ticket in (late, closed, new_ticket("t3")):
        document = ticket.model_dump_json(exclude={"version"})
        await connection.execute(_OLD_TICKET, ticket.ticket_id, ticket.tenant_id, 7, document)
    headers = (("ce_id", b"1"), ("odd", b"\x00\xff"), ("odd", b""))
    in_base64 = json.dumps([[name, base64.b64encode(value).decode()] for name, value in headers])
    for name, topic, written, at, place in (
        ("o1", "a", in_base64, now, 4),
        ("o2", "a", in_base64, None, None),
        ("o3", "b", "[]", None, None),
        ("o4", "a", in_base64, None, None),
    ):
        await connection.execute(_OLD_OUTBOX_ROW, name, topic, name.encode(), written, at, place)

    await migrate(postgres_dsn)

    async with open_pool(postgres_dsn) as pool:
        stores, store = postgres_stores(pool), PostgresTickets(pool)
        assert await store.load("t1") == late.model_copy(update={"version": 7})
        assert [ticket.ticket_id for ticket in await store.overdue(grace_s=5, limit=10)] == ["t1"]
        told = {entry.detail["event_id"]: entry.detail["offset"] for entry in await store.timeline("t1")}
        assert told == {"o1": 4, "o2": None, "o3": None, "o4": None}
        step = settlement(await loaded(store), "e2", outgoing=[record("o5", topic="a"), record("o6", topic="c")])
        [new] = (await must_settle(store, step)).records  # those of before come first in their topic
        assert new.record.event_id == "o6"
        await stores.leases.hold(worker_lease(OWNER), OWNER, lease_s=60)
        rows = await stores.outbox.take_over(OWNER, limit=10)
        assert [row.record.event_id for row in rows] == ["o2", "o3", "o4", "o5"]
        assert [row.record.value for row in rows[:3]] == [b"o2", b"o3", b"o4"]
        assert [row.record.headers for row in rows[:3]] == [headers, (), headers]
        assert max(row.outbox_id for row in rows) < new.outbox_id


# --- the pool


async def test_a_wrong_database_is_misconfigured(postgres_dsn: str) -> None:
    with pytest.raises(Misconfigured, match="no_such_database"):
        async with open_pool(f"{postgres_dsn}_no_such_database"):
            pass


async def test_a_wrong_user_is_misconfigured(postgres_dsn: str) -> None:
    with pytest.raises(Misconfigured, match="nobody_we_know"):
        async with open_pool(postgres_dsn.replace("postgres@", "nobody_we_know@")):
            pass


@pytest.mark.parametrize("dsn", ["mysql://u:sesame@h/db", "postgresql://u:sesame@h:port/db", "nonsense"])
async def test_a_malformed_dsn_is_misconfigured_and_not_repeated(dsn: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        async with open_pool(dsn):
            pass
    assert "sesame" not in str(caught.value)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        async with open_pool("postgresql://u@127.0.0.1:1/db"):
            pass
    with pytest.raises(StoreUnavailable):
        await migrate("postgresql://u@127.0.0.1:1/db")


async def test_a_database_without_the_schema_is_misconfigured(postgres_dsn: str) -> None:
    async with open_pool(postgres_dsn) as pool:
        with pytest.raises(Misconfigured, match="schema"):
            await PostgresTickets(pool).load("t1")


async def test_an_exhausted_pool_is_unavailable(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "ACQUIRE_TIMEOUT_S", 0.1)
    async with open_pool(postgres_dsn, max_size=1) as pool, borrowed(pool):
        with pytest.raises(StoreUnavailable):
            async with borrowed(pool):
                pass


async def test_who_waited_in_vain_for_a_connection_costs_none(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acquisition that timed out or was cancelled kept its connection (asyncpg#467)."""
    monkeypatch.setattr(pool_module, "ACQUIRE_TIMEOUT_S", 0.05)

    async def borrow(pool: asyncpg.Pool) -> None:
        async with borrowed(pool):
            pass

    async with open_pool(postgres_dsn, max_size=2) as pool:
        async with borrowed(pool), borrowed(pool):
            waiting = [asyncio.create_task(borrow(pool)) for _ in range(20)]
            await asyncio.wait(waiting[:1])
            for task in waiting[1::2]:
                task.cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {StoreUnavailable, asyncio.CancelledError}
        async with borrowed(pool), borrowed(pool):
            assert pool.get_idle_size() == 0


async def test_a_connection_that_died_in_use_makes_room_for_a_new_one(postgres_dsn: str) -> None:
    """It never came back to its pool (asyncpg#385)."""
    async with open_pool(postgres_dsn, max_size=2) as pool:
        for _ in range(4):
            with pytest.raises(StoreUnavailable):
                async with borrowed(pool) as connection:
                    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        async with borrowed(pool) as one, borrowed(pool) as other:
            assert await one.fetchval("SELECT 1") == await other.fetchval("SELECT 1") == 1


async def test_a_restarted_server_is_found_again(postgres_dsn: str, postgres_server: Postgres) -> None:
    """The connections of before are stale, and were handed out (asyncpg#704)."""
    await migrate(postgres_dsn)
    async with open_pool(postgres_dsn, max_size=3) as pool:
        store = PostgresTickets(pool)
        await asyncio.gather(*(store.load("t1") for _ in range(10)))

        async def away() -> bool:
            try:
                return await store.load("t1") is not None
            except StoreUnavailable:
                return True

        async def back() -> bool:
            return not await away()

        postgres_server.service.kill()
        await until(away)
        postgres_server.service.heal()
        await until(back)


async def test_closing_does_not_wait_for_a_server_that_says_no_more(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close(timeout)` waits for ever for a frozen server (asyncpg#1356)."""
    monkeypatch.setattr(pool_module, "CLOSE_TIMEOUT_S", 0.3)
    address = urlsplit(postgres_dsn)
    assert address.hostname is not None
    assert address.port is not None
    async with cable_to(address.hostname, address.port) as cable:
        async with open_pool(postgres_dsn.replace(f":{address.port}/", f":{cable.port}/"), max_size=2) as pool:
            cable.answers.clear()
            waiting = asyncio.create_task(PostgresTickets(pool).load("t1"))
            await cable.held.wait()
            began = time.monotonic()
        assert time.monotonic() - began < 3
        with pytest.raises(StoreUnavailable):
            await waiting


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SET statement_timeout = '10ms'; SELECT pg_sleep(5)",
        "BEGIN READ ONLY; CREATE TABLE x (id int)",
    ],
)
async def test_what_the_server_may_get_over_is_unavailable(connection: asyncpg.Connection, sql: str) -> None:
    with pytest.raises(StoreUnavailable), as_our_errors():
        await connection.execute(sql)
