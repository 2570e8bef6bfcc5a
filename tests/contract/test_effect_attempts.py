"""What the book of tries promises, in memory and on PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal

import asyncpg
import pytest

from contracts.effect_ports import Attempts, Begun, Busy, Done, First, InDoubt, Refused
from contracts.errors import ContractBroken
from contracts.ports import EffectResult
from state.effect_attempts import MemoryAttempts, PostgresAttempts
from state.effects import PostgresEffects
from tests.contract.samples import cancel, order, reply

LEASE_S = 30.0
RESULT = EffectResult(order("#W1", "ada", "cancelled", "12.30"), Decimal("12.30"))


@dataclass(frozen=True)
class Book:
    attempts: Attempts
    let_pass: Callable[[float], Awaitable[None]]  # seconds

    async def begin(self, order_id: str = "#W1") -> Begun:
        return await self.attempts.begin(cancel("k", order_id), "ada", "webhook", lease_s=LEASE_S)


class AttemptsContract:
    async def test_a_key_is_begun_by_one_of_many_at_once(self, book: Book) -> None:
        begun = await asyncio.gather(*(book.begin() for _ in range(8)))
        assert begun.count(First()) == 1
        busy = [one for one in begun if isinstance(one, Busy)]
        assert len(busy) == 7
        assert all(0 < one.wait_s <= LEASE_S for one in busy)

    async def test_what_was_begun_and_never_ended_is_in_doubt_once_its_time_is_over(self, book: Book) -> None:
        await book.begin()
        await book.let_pass(LEASE_S)
        assert await book.begin() == InDoubt()
        assert isinstance(await book.begin(), Busy)

    async def test_a_try_in_doubt_is_anybodys_at_once(self, book: Book) -> None:
        await book.begin()
        await book.attempts.doubt("k", "no answer")
        assert await book.begin() == InDoubt()

    async def test_a_try_without_effect_leaves_nothing(self, book: Book) -> None:
        await book.begin()
        await book.attempts.drop("k")
        assert await book.begin() == First()

    async def test_what_is_in_doubt_is_not_dropped(self, book: Book) -> None:
        await book.begin()
        await book.attempts.doubt("k", "no answer")
        await book.attempts.drop("k")
        assert await book.begin() == InDoubt()

    async def test_what_is_done_stays_done_with_its_first_result(self, book: Book) -> None:
        await book.begin()
        await book.attempts.done(cancel("k"), "ada", RESULT)
        await book.attempts.done(cancel("k"), "ada", EffectResult(None, Decimal(1)))
        await book.attempts.doubt("k", "too late")
        await book.attempts.refused("k", "too late")
        assert await book.begin() == Done(RESULT)

    async def test_what_is_refused_stays_refused(self, book: Book) -> None:
        await book.begin()
        await book.attempts.refused("k", "the order is gone")
        await book.let_pass(10 * LEASE_S)
        assert await book.begin() == Refused("the order is gone")

    async def test_a_key_serves_one_command(self, book: Book) -> None:
        await book.begin()
        await book.attempts.done(cancel("k"), "ada", RESULT)
        with pytest.raises(ContractBroken):
            await book.begin("#W10")
        with pytest.raises(ContractBroken):
            await book.attempts.begin(reply("k"), None, "smtp", lease_s=LEASE_S)


class TestInMemory(AttemptsContract):
    @pytest.fixture
    def book(self) -> Book:
        now = 0.0

        async def let_pass(seconds: float) -> None:
            nonlocal now
            now += seconds

        return Book(MemoryAttempts(lambda: now), let_pass)


@pytest.mark.postgres
class TestOnPostgres(AttemptsContract):
    @pytest.fixture
    def book(self, pool: asyncpg.Pool) -> Book:
        async def let_pass(seconds: float) -> None:
            await pool.execute("UPDATE effect_attempts SET begun_at = begun_at - make_interval(secs => $1)", seconds)

        return Book(PostgresAttempts(pool), let_pass)

    async def test_what_is_done_stands_among_the_effects(self, pool: asyncpg.Pool) -> None:
        attempts = PostgresAttempts(pool)
        await attempts.begin(reply("k"), None, "smtp", lease_s=LEASE_S)
        assert await pool.fetch("SELECT FROM effects") == []
        await attempts.done(reply("k"), None, EffectResult(None, Decimal(0)))
        row = await pool.fetchrow("SELECT kind, state, tries FROM effects JOIN effect_attempts USING (effect_key)")
        assert row is not None
        assert tuple(row) == ("send_reply", "done", 1)

    async def test_a_reply_that_the_table_took_is_not_sent_again_once_mail_is_set_up(self, pool: asyncpg.Pool) -> None:
        sent = await PostgresEffects(pool, lambda tenant_id: tenant_id).send(reply("k"))
        assert await PostgresAttempts(pool).begin(reply("k"), None, "smtp", lease_s=LEASE_S) == Done(sent)
