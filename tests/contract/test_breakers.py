"""What breakers promise: a model that does not answer is left alone, and asked again by one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from contracts.errors import StoreUnavailable
from contracts.model_ports import Breakers, Open, Pass
from state.breakers import BreakerOptions, MemoryBreakers, RedisBreakers
from state.redis_calls import RedisCalls
from tests.services.native import Service

OPTIONS = BreakerOptions(failures=3, share=0.5, window_s=20, open_s=0.2, longest_open_s=0.5, probe_s=0.4)
LetPass = Callable[[float], Awaitable[None]]


async def fail(breakers: Breakers, times: int, target: str = "m") -> Pass | Open:
    state: Pass | Open = Pass()
    for number in range(times):
        await breakers.ask(target, f"f{number}")
        state = await breakers.tell(target, f"f{number}", answered=False)
    return state


class BreakersContract:
    async def test_it_opens_after_enough_failures_and_says_for_how_long(self, breakers: Breakers) -> None:
        assert await fail(breakers, 2) == Pass()
        assert await fail(breakers, 1) == Open(0.2)
        state = await breakers.ask("m", "c1")
        assert isinstance(state, Open)
        assert 0 < state.wait_s <= 0.2
        assert await breakers.ask("another", "c1") == Pass()

    async def test_it_stays_closed_while_most_calls_are_answered(self, breakers: Breakers) -> None:
        for number in range(10):
            await breakers.ask("m", f"good{number}")
        assert await fail(breakers, 9) == Pass()

    async def test_what_cannot_be_said_counts_neither_way(self, breakers: Breakers) -> None:
        for number in range(9):
            await breakers.ask("m", f"c{number}")
            assert await breakers.tell("m", f"c{number}", answered=None) == Pass()

    async def test_half_open_lets_one_probe_through(self, breakers: Breakers, let_pass: LetPass) -> None:
        await fail(breakers, 3)
        await let_pass(0.21)
        states = [await breakers.ask("m", f"c{n}") for n in range(20)]
        assert states[0] == Pass(probe=True)
        assert all(isinstance(state, Open) for state in states[1:])

    async def test_a_probe_that_is_answered_closes_it(self, breakers: Breakers, let_pass: LetPass) -> None:
        await fail(breakers, 3)
        await let_pass(0.21)
        await breakers.ask("m", "probe")
        assert await breakers.tell("m", "probe", answered=True) == Pass()
        assert await breakers.ask("m", "c1") == Pass()

    async def test_a_probe_that_fails_opens_it_for_longer_up_to_a_bound(
        self, breakers: Breakers, let_pass: LetPass
    ) -> None:
        await fail(breakers, 3)
        waits = []
        for number in range(3):
            await let_pass(0.51)
            await breakers.ask("m", f"probe{number}")
            state = await breakers.tell("m", f"probe{number}", answered=False)
            assert isinstance(state, Open)
            waits.append(state.wait_s)
        assert waits == [0.4, 0.5, 0.5]

    async def test_a_probe_that_is_never_heard_of_makes_room_for_another(
        self, breakers: Breakers, let_pass: LetPass
    ) -> None:
        await fail(breakers, 3)
        await let_pass(0.21)
        assert await breakers.ask("m", "dead") == Pass(probe=True)
        await let_pass(0.41)
        assert await breakers.ask("m", "next") == Pass(probe=True)

    async def test_a_probe_without_a_verdict_makes_room_at_once(self, breakers: Breakers, let_pass: LetPass) -> None:
        await fail(breakers, 3)
        await let_pass(0.21)
        await breakers.ask("m", "cancelled")
        await breakers.tell("m", "cancelled", answered=None)
        assert await breakers.ask("m", "next") == Pass(probe=True)

    async def test_stragglers_from_before_it_opened_decide_nothing(self, breakers: Breakers, let_pass: LetPass) -> None:
        for number in range(4):
            await breakers.ask("m", f"early{number}")
        await fail(breakers, 4)
        assert isinstance(await breakers.tell("m", "early0", answered=True), Open)
        await let_pass(0.21)
        await breakers.ask("m", "probe")
        assert isinstance(await breakers.tell("m", "early1", answered=False), Open)
        assert await breakers.tell("m", "probe", answered=True) == Pass()

    async def test_a_look_says_that_it_is_open_until_a_probe_was_answered_and_is_no_probe(
        self, breakers: Breakers, let_pass: LetPass
    ) -> None:
        assert not await breakers.is_open("m")
        await fail(breakers, 3)
        assert await breakers.is_open("m")
        assert not await breakers.is_open("another")
        await let_pass(0.21)
        assert await breakers.is_open("m")
        assert await breakers.ask("m", "probe") == Pass(probe=True)
        assert await breakers.is_open("m")
        await breakers.tell("m", "probe", answered=True)
        assert not await breakers.is_open("m")

    async def test_looks_are_no_calls_that_were_answered(self, breakers: Breakers) -> None:
        await fail(breakers, 2)
        for _ in range(20):
            await breakers.is_open("m")
        assert await fail(breakers, 1) == Open(0.2)


class TestInMemory(BreakersContract):
    @pytest.fixture
    def clock(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def breakers(self, clock: list[float]) -> MemoryBreakers:
        return MemoryBreakers(OPTIONS, lambda: clock[0])

    @pytest.fixture
    def let_pass(self, clock: list[float]) -> LetPass:
        async def passed(seconds: float) -> None:
            clock[0] += seconds

        return passed


@pytest.mark.redis
class TestOnRedis(BreakersContract):
    @pytest.fixture
    async def breakers(self, redis_url: str) -> AsyncIterator[RedisBreakers]:
        async with RedisCalls.open(redis_url) as calls:
            yield RedisBreakers(calls, OPTIONS)

    @pytest.fixture
    def let_pass(self) -> LetPass:
        return asyncio.sleep  # the server's clock cannot be moved

    async def test_all_workers_see_the_same(self, breakers: RedisBreakers, redis_url: str) -> None:
        async with RedisCalls.open(redis_url) as calls:
            other = RedisBreakers(calls, OPTIONS)
            await fail(breakers, 2)
            await fail(other, 1)
            assert isinstance(await breakers.ask("m", "c1"), Open)

    async def test_without_redis_each_worker_goes_by_what_it_sees(
        self, breakers: RedisBreakers, redis_server: Service
    ) -> None:
        redis_server.kill()
        assert await breakers.ask("m", "c1") == Pass()
        await fail(breakers, 3)
        assert isinstance(await breakers.ask("m", "c2"), Open)
        with pytest.raises(StoreUnavailable):
            await breakers.is_open("m")
