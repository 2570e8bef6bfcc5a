"""What budgets promise: never more than allowed, nothing held for ever, and Redis may forget all of it."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest
from redis.asyncio import Redis

from contracts.errors import StoreUnavailable
from contracts.model_ports import Budget, Busy, Granted, Hold, ProviderCall, Spent
from contracts.models import CallContext, ModelCall
from contracts.values import Tier
from ops.usage import alert_record, usage_record
from state import budgets as budgets_module
from state.budgets import RedisBudgets
from state.model_calls import PostgresModelCalls
from state.redis_calls import RedisCalls
from tests.services.native import Service

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

TODAY = datetime.now(UTC).date()
DOLLAR = Budget("tenant", "north", TODAY.isoformat(), Decimal(1), None)


def hold(usd: str, tokens: int = 100, lease_s: float = 60) -> Hold:
    return Hold(Decimal(usd), tokens, lease_s)


def call(id_: str = "c1") -> ProviderCall:
    context = CallContext("t1", "north", "e1", "triage", "classify")
    return ProviderCall(id_, context, Tier.FAST, "openai", "m", TODAY)


class Purse:
    """Budgets with their book: reserves, and settles as the gateway does."""

    def __init__(self, budgets: RedisBudgets, book: PostgresModelCalls, pool: asyncpg.Pool) -> None:
        self.budgets = budgets
        self.book = book
        self.pool = pool

    async def reserve(self, id_: str, held: Hold, *budgets: Budget) -> Granted | Busy | Spent:
        return await self.budgets.reserve(call(id_), held, budgets or [DOLLAR])

    async def settle(self, id_: str, held: Hold, usd: str, *budgets: Budget, tokens: int = 10) -> None:
        made = ModelCall(
            call_id="x",
            step="classify",
            tier=Tier.FAST,
            provider="openai",
            model="m",
            input_tokens=tokens,
            cost_usd=Decimal(usd),
            latency_s=0,
            outcome="ok",
        )
        await self.book.finish(call(id_), made, None)
        await self.budgets.settle(call(id_), held, budgets or [DOLLAR], usd=Decimal(usd), tokens=tokens)

    async def alerts(self) -> list[tuple[str, int]]:
        rows = await self.pool.fetch("SELECT value FROM outbox WHERE type = 'BudgetReached' ORDER BY id")
        return [(told["scope"], told["level"]) for told in (json.loads(row["value"]) for row in rows)]


@pytest.fixture
async def purse(pool: asyncpg.Pool, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Purse]:
    monkeypatch.setattr(budgets_module, "AFTER_FLUSH_S", 0.5)
    monkeypatch.setattr(budgets_module, "OPENED_WITHIN_S", 0.4)
    async with RedisCalls.open(redis_url) as calls:
        book = PostgresModelCalls(pool, usage_record, alert_record)
        yield Purse(RedisBudgets(calls, book), book, pool)


async def test_what_is_held_and_spent_never_passes_the_limit(purse: Purse) -> None:
    assert await purse.reserve("c1", hold("0.6")) == Granted()
    assert await purse.reserve("c2", hold("0.6")) == Busy(DOLLAR)
    await purse.settle("c1", hold("0.6"), "0.1")
    assert await purse.reserve("c2", hold("0.6")) == Granted()
    await purse.settle("c2", hold("0.6"), "0.6")
    assert await purse.reserve("c3", hold("0.31")) == Spent(DOLLAR)
    assert await purse.reserve("c4", hold("0.3")) == Granted()


async def test_what_was_not_made_is_given_back_and_not_in_the_book(purse: Purse) -> None:
    await purse.reserve("c1", hold("0.9"))
    await purse.budgets.release(call("c1"), hold("0.9"), [DOLLAR])
    assert await purse.reserve("c2", hold("0.9")) == Granted()
    assert await purse.pool.fetchval("SELECT count(*) FROM model_calls") == 1


async def test_the_same_call_holds_once(purse: Purse) -> None:
    assert await purse.reserve("c1", hold("0.6")) == Granted()
    assert await purse.reserve("c1", hold("0.6")) == Granted()
    await purse.settle("c1", hold("0.6"), "0.1")
    assert await purse.reserve("c2", hold("0.9")) == Granted()


async def test_all_budgets_grant_or_none_does(purse: Purse) -> None:
    ticket = Budget("ticket", "t1", "", None, 150)
    assert await purse.reserve("c1", hold("0.5", tokens=100), DOLLAR, ticket) == Granted()
    assert await purse.reserve("c2", hold("0.1", tokens=100), DOLLAR, ticket) == Busy(ticket)
    assert await purse.reserve("c3", hold("0.5"), DOLLAR) == Granted()  # the refused one holds nothing
    await purse.settle("c1", hold("0.5", tokens=100), "0.5", DOLLAR, ticket, tokens=100)
    assert await purse.reserve("c4", hold("0.1", tokens=51), ticket) == Spent(ticket)
    assert await purse.reserve("c5", hold("0.1", tokens=50), ticket) == Granted()


async def test_the_hold_of_a_dead_worker_lapses(purse: Purse) -> None:
    assert await purse.reserve("c1", hold("0.9", lease_s=0.3)) == Granted()
    assert await purse.reserve("c2", hold("0.9")) == Busy(DOLLAR)
    async with asyncio.timeout(30):
        while await purse.reserve("c2", hold("0.9")) != Granted():
            await asyncio.sleep(0.02)


async def test_a_call_that_settles_after_its_lease_is_counted_all_the_same(purse: Purse) -> None:
    await purse.reserve("c1", hold("0.9", lease_s=0.1))
    async with asyncio.timeout(30):
        while await purse.reserve("c2", hold("0.2")) != Granted():
            await asyncio.sleep(0.02)
    await purse.settle("c1", hold("0.9", lease_s=0.1), "0.9")
    assert isinstance(await purse.reserve("c3", hold("0.11")), Spent)


async def test_a_hold_whose_settling_got_lost_is_settled_by_the_book_when_its_lease_is_over(purse: Purse) -> None:
    await purse.reserve("c1", hold("0.9", lease_s=0.2))
    await purse.settle("c1", hold("0.9", lease_s=0.2), "0.9", Budget("day", "elsewhere", "2026-01-01", None, None))
    assert await purse.reserve("c2", hold("0.2")) == Busy(DOLLAR)
    async with asyncio.timeout(30):
        while await purse.reserve("c2", hold("0.2")) == Busy(DOLLAR):
            await asyncio.sleep(0.02)
    assert await purse.reserve("c2", hold("0.11")) == Spent(DOLLAR)
    assert await purse.reserve("c2", hold("0.1")) == Granted()


async def test_a_second_loss_while_one_is_waited_out_is_waited_out_as_well(
    purse: Purse, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited since before the second loss began anew right after it."""
    monkeypatch.setattr(budgets_module, "AFTER_FLUSH_S", 0.6)
    first = asyncio.create_task(purse.reserve("c1", hold("0.1")))
    await asyncio.sleep(0.4)
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        flushed_at = asyncio.get_running_loop().time()
    assert await first == Granted()
    assert asyncio.get_running_loop().time() - flushed_at >= 0.6


async def test_what_redis_forgot_is_read_from_the_book(purse: Purse, redis_url: str) -> None:
    await purse.reserve("done", hold("0.5"))
    await purse.settle("done", hold("0.5"), "0.4")
    await purse.reserve("under way", hold("0.3"))
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
    assert await purse.reserve("c3", hold("0.31")) == Busy(DOLLAR)
    assert await purse.reserve("c3", hold("0.3")) == Granted()
    await purse.settle("under way", hold("0.3"), "0.1")
    assert await purse.reserve("c4", hold("0.21")) == Busy(DOLLAR)
    assert await purse.reserve("c4", hold("0.2")) == Granted()


async def test_a_budget_lost_alone_is_read_from_the_book(purse: Purse, redis_url: str) -> None:
    await purse.reserve("c1", hold("0.5"))
    async with Redis.from_url(redis_url) as client:
        await client.delete(*[key async for key in client.scan_iter("{budget}:tenant:*")])
    await purse.settle("c1", hold("0.5"), "0.5")
    assert await purse.reserve("c2", hold("0.51")) == Spent(DOLLAR)


async def test_nothing_is_granted_before_what_a_flush_made_forget_is_in_the_book(
    purse: Purse, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold that Redis granted, and that was not in the book yet when Redis lost everything."""
    monkeypatch.setattr(budgets_module, "AFTER_FLUSH_S", 0.5)
    await purse.reserve("warm", hold("0.01"))
    opening = asyncio.Event()
    open_now = purse.book.open

    async def open_slowly(provider_call: ProviderCall, held: Hold) -> None:
        if provider_call.id == "late":
            opening.set()
            await asyncio.sleep(0.2)
        await open_now(provider_call, held)

    purse.book.open = open_slowly  # type: ignore[method-assign]
    late = asyncio.create_task(purse.reserve("late", hold("0.9")))
    await opening.wait()
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
    assert await purse.reserve("other", hold("0.9")) == Busy(DOLLAR)
    assert await late == Granted()


async def test_a_hold_that_is_not_in_the_book_yet_outlasts_whatever_else_is_settled(purse: Purse) -> None:
    """A budget was dropped, to be read again, when it met a hold it did not know: what was just held got lost."""
    await purse.reserve("warm", hold("0.01"))
    opening = asyncio.Event()
    open_now = purse.book.open

    async def open_slowly(provider_call: ProviderCall, held: Hold) -> None:
        opening.set()
        await asyncio.sleep(0.2)
        await open_now(provider_call, held)

    purse.book.open = open_slowly  # type: ignore[method-assign]
    late = asyncio.create_task(purse.reserve("late", hold("0.9")))
    await opening.wait()
    await purse.settle("settled in the sums already", hold("0.05"), "0.05")
    assert await purse.reserve("other", hold("0.2")) == Busy(DOLLAR)
    await purse.budgets._load(DOLLAR)  # as who found it missing, and comes when others have loaded it
    assert await purse.reserve("other", hold("0.2")) == Busy(DOLLAR)
    assert await late == Granted()


async def test_a_grant_that_comes_too_late_into_the_book_is_given_back_and_asked_for_anew(
    purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets_module, "OPENED_WITHIN_S", 0.1)
    open_now, slow = purse.book.open, [True]

    async def open_slowly(provider_call: ProviderCall, held: Hold) -> None:
        if slow.pop() if slow else False:
            await asyncio.sleep(0.2)
        await open_now(provider_call, held)

    purse.book.open = open_slowly  # type: ignore[method-assign]
    assert await purse.reserve("c1", hold("0.9")) == Granted()
    assert await purse.reserve("c2", hold("0.2")) == Busy(DOLLAR)
    assert await purse.pool.fetchval("SELECT count(*) FROM model_calls") == 1


async def test_each_level_is_told_once_also_after_redis_forgot(purse: Purse, redis_url: str) -> None:
    for number in range(8):
        await purse.reserve(f"c{number}", hold("0.12"))
        await purse.settle(f"c{number}", hold("0.12"), "0.12")
        if number == 5:
            async with Redis.from_url(redis_url) as client:
                await client.flushall()
    assert await purse.alerts() == [("tenant", 50), ("tenant", 80)]
    for _ in range(2):
        assert await purse.reserve("last", hold("0.12")) == Spent(DOLLAR)
    assert await purse.alerts() == [("tenant", 50), ("tenant", 80), ("tenant", 100)]


async def test_a_look_tells_the_largest_share_that_is_settled_and_holds_nothing(purse: Purse) -> None:
    tokens = Budget("agent", "triage", TODAY.isoformat(), None, 400)
    assert await purse.budgets.share_spent([DOLLAR, tokens]) == 0
    await purse.reserve("c1", hold("0.9"), DOLLAR, tokens)
    assert await purse.budgets.share_spent([DOLLAR, tokens]) == 0
    await purse.settle("c1", hold("0.9"), "0.3", DOLLAR, tokens, tokens=100)
    assert await purse.budgets.share_spent([DOLLAR, tokens]) == pytest.approx(0.3)
    assert await purse.budgets.share_spent([tokens]) == pytest.approx(0.25)
    assert await purse.budgets.share_spent([]) == 0
    assert await purse.reserve("c2", hold("0.7")) == Granted()


async def test_a_look_at_what_redis_forgot_is_a_look_into_the_book(purse: Purse, redis_url: str) -> None:
    await purse.reserve("c1", hold("0.9"))
    await purse.settle("c1", hold("0.9"), "0.4")
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        assert await purse.budgets.share_spent([DOLLAR]) == pytest.approx(0.4)
        assert await client.keys("*") == []


async def test_nothing_allowed_is_all_spent(purse: Purse) -> None:
    assert await purse.budgets.share_spent([DOLLAR._replace(usd=Decimal(0))]) == 1


async def test_redis_away_grants_nothing(purse: Purse, redis_server: Service) -> None:
    redis_server.kill()
    with pytest.raises(StoreUnavailable):
        await purse.reserve("c1", hold("0.1"))


async def test_hundreds_at_once_spend_all_but_never_more(purse: Purse, redis_url: str) -> None:
    """Each holds far more than it uses; Redis forgets everything twice while they do."""
    chance, spent = random.Random(3), Decimal(0)

    async def buy(number: int) -> None:
        nonlocal spent
        held, cost = hold("0.02"), Decimal(chance.randrange(1, 60)) / 10_000
        while isinstance(verdict := await purse.reserve(f"c{number}", held), Busy):
            await asyncio.sleep(0.01)
        if isinstance(verdict, Granted):
            await asyncio.sleep(chance.random() / 50)
            spent += cost
            assert spent <= 1
            await purse.settle(f"c{number}", held, str(cost))

    async def forget() -> None:
        async with Redis.from_url(redis_url) as client:
            for _ in range(2):
                before = spent
                while spent < before + Decimal("0.3"):
                    await asyncio.sleep(0.005)
                await client.flushall()

    forgetting = asyncio.create_task(forget())
    await asyncio.gather(*(buy(number) for number in range(500)))
    await forgetting
    assert Decimal("0.98") <= spent <= 1
    book = await purse.pool.fetchval("SELECT sum(cost_usd) FROM model_calls")
    assert book == spent
