"""What key limits promise: no window holds more than it may, and a key that is out is left alone."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from contracts.model_ports import KeyGranted, KeyLimits, KeyWait, Load, NoKey
from state.key_limits import MemoryKeyLimits, RedisKeyLimits
from state.redis_calls import RedisCalls

OpenLimits = Callable[..., KeyLimits]
WINDOW_S = 1.0
CALL = Load(1, 100, 50)


class KeyLimitsContract:
    async def test_calls_are_spread_over_the_keys_until_none_has_room(self, limits: OpenLimits) -> None:
        pool = limits(keys=3, a_minute=Load(requests=2))
        got = [await pool.acquire(f"c{n}", CALL, lease_s=60) for n in range(6)]
        assert Counter(got) == {KeyGranted(0): 2, KeyGranted(1): 2, KeyGranted(2): 2}
        assert isinstance(await pool.acquire("c6", CALL, lease_s=60), KeyWait)

    @pytest.mark.parametrize(
        "a_minute", [Load(input_tokens=250), Load(output_tokens=120), Load(tokens=320)], ids=["input", "output", "both"]
    )
    async def test_tokens_count_as_what_may_come_until_it_is_known(self, limits: OpenLimits, a_minute: Load) -> None:
        pool = limits(keys=1, a_minute=a_minute)
        assert await pool.acquire("c1", CALL, lease_s=60) == KeyGranted(0)
        assert await pool.acquire("c2", CALL, lease_s=60) == KeyGranted(0)
        assert isinstance(await pool.acquire("c3", CALL, lease_s=60), KeyWait)
        await pool.settle("c1", 0, CALL, Load(1, 10, 5))
        assert await pool.acquire("c3", CALL, lease_s=60) == KeyGranted(0)

    @pytest.mark.parametrize(
        "a_minute", [Load(input_tokens=250), Load(output_tokens=120), Load(tokens=320)], ids=["input", "output", "both"]
    )
    async def test_what_was_used_counts_for_the_whole_window(self, limits: OpenLimits, a_minute: Load) -> None:
        pool = limits(keys=1, a_minute=a_minute)
        for number in range(2):
            assert await pool.acquire(f"c{number}", CALL, lease_s=60) == KeyGranted(0)
            await pool.settle(f"c{number}", 0, CALL, CALL)
        assert isinstance(await pool.acquire("c3", CALL, lease_s=60), KeyWait)

    async def test_a_call_that_was_not_made_leaves_nothing(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=1))
        await pool.acquire("c1", CALL, lease_s=60)
        await pool.settle("c1", 0, CALL, None)
        assert await pool.acquire("c2", CALL, lease_s=60) == KeyGranted(0)

    async def test_a_call_larger_than_the_limit_has_a_key_for_itself(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(input_tokens=50))
        assert await pool.acquire("c1", CALL, lease_s=60) == KeyGranted(0)
        assert isinstance(await pool.acquire("c2", CALL, lease_s=60), KeyWait)

    async def test_a_paused_key_is_left_alone_and_comes_back(self, limits: OpenLimits) -> None:
        pool = limits(keys=2, a_minute=Load(requests=100))
        await pool.pause(0, 60)
        assert {await pool.acquire(f"c{n}", CALL, lease_s=60) for n in range(5)} == {KeyGranted(1)}
        await pool.pause(1, 0.3)
        verdict = await pool.acquire("c5", CALL, lease_s=60)
        assert isinstance(verdict, NoKey)
        assert 0 < verdict.wait_s <= 0.3
        async with asyncio.timeout(30):
            while await pool.acquire("c5", CALL, lease_s=60) != KeyGranted(1):
                await asyncio.sleep(0.02)

    async def test_what_others_used_counts_too(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=10))
        await pool.correct(0, Load(1, -1, -1, -1), Load(10, -1, -1, -1))
        assert await pool.acquire("c1", CALL, lease_s=60) == KeyGranted(0)
        assert isinstance(await pool.acquire("c2", CALL, lease_s=60), KeyWait)

    async def test_what_we_used_ourselves_is_not_counted_again(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=10))
        for number in range(5):
            await pool.acquire(f"c{number}", CALL, lease_s=60)
            await pool.settle(f"c{number}", 0, CALL, CALL)
            await pool.correct(0, Load(9 - number, -1, -1, -1), Load(10, -1, -1, -1))
        got = [await pool.acquire(f"d{n}", CALL, lease_s=60) for n in range(6)]
        assert [isinstance(verdict, KeyGranted) for verdict in got] == [True] * 5 + [False]

    async def test_a_look_tells_the_share_of_the_tightest_limit_over_all_keys(self, limits: OpenLimits) -> None:
        pool = limits(keys=2, a_minute=Load(requests=10, output_tokens=1_000))
        assert await pool.share_used() == 0
        for number in range(4):
            await pool.acquire(f"c{number}", CALL, lease_s=60)
        assert await pool.share_used() == pytest.approx(4 / 20)
        big = Load(1, 100, 700)
        assert await pool.acquire("big", big, lease_s=60) == KeyGranted(0)
        assert await pool.share_used() == pytest.approx(900 / 2_000)
        await pool.settle("big", 0, big, Load(1, 100, 10))
        assert await pool.share_used() == pytest.approx(5 / 20)

    async def test_a_look_takes_nothing(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=2))
        await pool.acquire("c1", CALL, lease_s=60)
        assert {await pool.share_used() for _ in range(20)} == {0.5}
        assert await pool.acquire("c2", CALL, lease_s=60) == KeyGranted(0)

    async def test_a_look_sees_at_once_what_the_window_will_hold_at_this_pace(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=100), window_s=60)
        for number in range(10):
            await pool.acquire(f"c{number}", CALL, lease_s=60)
            await pool.settle(f"c{number}", 0, CALL, CALL)
        share = await pool.share_used()
        assert share is not None
        assert 3 < share <= 6.1, "ten in the first second would be six hundred in a minute"

    async def test_a_look_counts_what_left_the_window_no_more(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=4))
        for number in range(4):
            await pool.acquire(f"c{number}", CALL, lease_s=60)
            await pool.settle(f"c{number}", 0, CALL, CALL)
        assert await pool.share_used() == pytest.approx(1)
        async with asyncio.timeout(30):
            while await pool.share_used() != 0:
                await asyncio.sleep(0.02)

    async def test_a_look_leaves_paused_keys_out_and_is_full_when_all_are(self, limits: OpenLimits) -> None:
        pool = limits(keys=2, a_minute=Load(requests=4))
        await pool.acquire("c1", CALL, lease_s=60)
        await pool.pause(1, 60)
        assert await pool.share_used() == pytest.approx(1 / 4)
        await pool.pause(0, 60)
        assert await pool.share_used() == 1

    async def test_a_look_where_there_is_no_limit_says_so(self, limits: OpenLimits) -> None:
        assert await limits(keys=1, a_minute=Load()).share_used() is None

    async def test_no_window_holds_more_than_the_limit_and_little_less(self, limits: OpenLimits) -> None:
        """Hundreds of calls of any size, as fast as they are let, for several windows."""
        limit = Load(requests=40, tokens=4_000)
        pool, chance = limits(keys=2, a_minute=limit), random.Random(5)
        loop, taken = asyncio.get_running_loop(), []

        async def one(number: int) -> None:
            load = Load(1, chance.randrange(20, 80), 40)
            while not isinstance(verdict := await pool.acquire(f"c{number}", load, lease_s=60), KeyGranted):
                await asyncio.sleep(verdict.wait_s)
            began, used = loop.time(), Load(1, load.input_tokens - 10, chance.randrange(5, 40))
            await asyncio.sleep(0.02)
            taken.append((verdict.key, began, loop.time(), used))
            await pool.settle(f"c{number}", verdict.key, load, used)

        await asyncio.gather(*(one(number) for number in range(240)))
        for key in (0, 1):
            calls = [call for call in taken if call[0] == key]
            for _, start, _, _ in calls:
                end = start + WINDOW_S
                requests = sum(start <= began < end for _, began, _, _ in calls)
                tokens = sum(
                    (start <= began < end) * used.input_tokens + (start <= ended < end) * used.output_tokens
                    for _, began, ended, used in calls
                )
                assert requests <= limit.requests
                assert tokens <= limit.tokens
        lasted = max(ended for _, _, ended, _ in taken) - min(began for _, began, _, _ in taken)
        assert len(taken) >= 0.5 * 2 * limit.requests * lasted / WINDOW_S - 2 * limit.requests


class TestInMemory(KeyLimitsContract):
    @pytest.fixture
    def limits(self) -> OpenLimits:
        def opened(keys: int, a_minute: Load, window_s: float = WINDOW_S) -> KeyLimits:
            return MemoryKeyLimits(keys, a_minute, window_s=window_s)

        return opened


@pytest.mark.redis
class TestOnRedis(KeyLimitsContract):
    @pytest.fixture
    async def limits(self, redis_url: str) -> AsyncIterator[OpenLimits]:
        async with RedisCalls.open(redis_url) as calls:

            def opened(keys: int, a_minute: Load, window_s: float = WINDOW_S) -> KeyLimits:
                return RedisKeyLimits(calls, "pool", [f"k{n}" for n in range(keys)], a_minute, window_s=window_s)

            yield opened

    async def test_the_same_call_takes_room_once(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(requests=2))
        assert [await pool.acquire("c1", CALL, lease_s=60) for _ in range(3)] == [KeyGranted(0)] * 3
        assert await pool.acquire("c2", CALL, lease_s=60) == KeyGranted(0)

    async def test_a_look_leaves_out_what_a_dead_worker_holds(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(output_tokens=100))
        await pool.acquire("c1", CALL, lease_s=0.2)
        assert await pool.share_used() == pytest.approx(0.5)
        async with asyncio.timeout(30):
            while await pool.share_used() != 0:
                await asyncio.sleep(0.02)

    async def test_what_a_dead_worker_took_comes_free(self, limits: OpenLimits) -> None:
        pool = limits(keys=1, a_minute=Load(output_tokens=60))
        await pool.acquire("c1", CALL, lease_s=0.2)
        assert isinstance(await pool.acquire("c2", CALL, lease_s=60), KeyWait)
        async with asyncio.timeout(30):
            while not isinstance(await pool.acquire("c2", CALL, lease_s=60), KeyGranted):
                await asyncio.sleep(0.02)
