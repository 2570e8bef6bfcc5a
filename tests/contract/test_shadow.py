"""What a shadow promises: the shop as it was, and no way to write what is live."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from contracts.errors import Misconfigured
from state.effects import PostgresEffects
from state.shadow import ROLE, Shadow, open_shadow
from state.shop import PostgresShop
from state.shop_files import load_shop
from tests.contract.backends import migrated_pool
from tests.contract.samples import EXPORT, OTHER_EXPORT, OTHER_SHOP, SHOP, TENANT, cancel, modify, move, shop_of

pytestmark = pytest.mark.postgres


@pytest.fixture
async def live(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with migrated_pool(postgres_dsn) as pool:
        await load_shop(pool, SHOP, EXPORT)
        await load_shop(pool, OTHER_SHOP, OTHER_EXPORT)
        yield pool


async def now(pool: asyncpg.Pool) -> datetime:
    at: datetime = await pool.fetchval("SELECT clock_timestamp()")
    return at


async def tables_of(pool: asyncpg.Pool) -> list[str]:
    return [row["tablename"] for row in await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


async def assert_refused(shadow: Shadow, statement: str) -> None:
    for pool in (shadow.pool, shadow.live):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement)


async def test_the_database_refuses_every_write_to_every_live_table(postgres_dsn: str, live: asyncpg.Pool) -> None:
    tables = await tables_of(live)
    assert {"tickets", "outbox", "inbox", "effects", "shop_orders", "reviews", "recordings"} <= set(tables)
    async with open_shadow(postgres_dsn, shop_of, await now(live)) as shadow:
        assert await shadow.pool.fetchval("SELECT current_user") == ROLE
        for table in tables:
            await assert_refused(shadow, f"INSERT INTO public.{table} DEFAULT VALUES")
            await assert_refused(shadow, f"DELETE FROM public.{table}")
            await assert_refused(shadow, f"TRUNCATE public.{table}")
        await assert_refused(shadow, "UPDATE public.tickets SET status = 'closed'")
        await assert_refused(shadow, "CREATE TABLE public.mine ()")


async def test_what_is_done_in_a_shadow_stays_there_and_goes_with_it(postgres_dsn: str, live: asyncpg.Pool) -> None:
    async with open_shadow(postgres_dsn, shop_of, await now(live)) as shadow:
        await PostgresEffects(shadow.pool, shop_of).apply(cancel("k1"), "ada")
        changed = await PostgresShop(shadow.pool, shop_of).order(TENANT, "#W1")
        assert changed is not None
        assert changed.status == "cancelled"
    unchanged = await PostgresShop(live, shop_of).order(TENANT, "#W1")
    assert unchanged is not None
    assert unchanged.status == "pending"
    assert await live.fetchval("SELECT count(*) FROM effects") == 0
    assert await live.fetchval("SELECT count(*) FROM recordings") == 0
    assert await live.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'replay%'") == 0


async def test_orders_and_customers_are_as_they_were_before_the_first_effect_since(
    postgres_dsn: str, live: asyncpg.Pool
) -> None:
    effects, shop = PostgresEffects(live, shop_of), PostgresShop(live, shop_of)
    await effects.apply(move("k1"), "ada")
    between, moved = await now(live), await shop.order(TENANT, "#W1")
    await effects.apply(modify("k2", "7.70", "i1", new=["dear"], method="gift_1"), "ada")
    async with open_shadow(postgres_dsn, shop_of, between) as shadow:
        then = PostgresShop(shadow.pool, shop_of)
        assert await then.order(TENANT, "#W1") == moved
        assert await then.customer(TENANT, "ada.reed@example.com") == EXPORT.customers[0]
        assert shadow.not_put_back == 0
    async with open_shadow(postgres_dsn, shop_of, datetime(2020, 1, 1, tzinfo=UTC)) as shadow:
        first = next(order for order in EXPORT.orders if order.order_id == "#W1")
        assert await PostgresShop(shadow.pool, shop_of).order(TENANT, "#W1") == first


async def test_an_effect_of_which_nothing_was_kept_is_counted(postgres_dsn: str, live: asyncpg.Pool) -> None:
    began = await now(live)
    await PostgresEffects(live, shop_of).apply(cancel("k1"), "ada")
    await live.execute("DELETE FROM recordings")
    async with open_shadow(postgres_dsn, shop_of, began) as shadow:
        assert shadow.not_put_back == 1


async def test_a_shadow_that_a_killed_replay_left_is_dropped_and_one_in_use_is_not(
    postgres_dsn: str, live: asyncpg.Pool
) -> None:
    await live.execute("CREATE SCHEMA replay_left")
    async with open_shadow(postgres_dsn, shop_of, await now(live)) as shadow:
        assert not await live.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'replay_left')")
        async with open_shadow(postgres_dsn, shop_of, await now(live)):
            assert await shadow.pool.fetchval("SELECT count(*) FROM tickets") == 0
        assert await shadow.pool.fetchval("SELECT to_regclass($1)", f"{shadow.schema}.tickets") is not None


@pytest.fixture
async def guest_dsn(postgres_dsn: str, live: asyncpg.Pool) -> AsyncIterator[str]:
    """A login that may read the live tables and make nothing."""
    name, address = f"guest_{uuid.uuid4().hex[:8]}", urlsplit(postgres_dsn)
    await live.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'guest'")
    await live.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    host = address.netloc.rpartition("@")[2]
    yield urlunsplit(address._replace(netloc=f"{name}:guest@{host}"))
    await live.execute(f"DROP OWNED BY {name}")
    await live.execute(f"DROP ROLE {name}")


async def test_a_login_without_the_rights_is_told_what_an_administrator_is_to_run(
    guest_dsn: str, live: asyncpg.Pool
) -> None:
    with pytest.raises(Misconfigured, match=f"may not make them .* have an administrator run: CREATE ROLE {ROLE}"):
        async with open_shadow(guest_dsn, shop_of, await now(live)):
            pass
    assert await live.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'replay%'") == 0
