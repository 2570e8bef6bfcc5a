"""What every answer cache promises; and that Redis in trouble is a miss, never an error or a wrong answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from contracts.errors import Misconfigured
from state.answer_cache import MemoryAnswerCache, RedisAnswerCache
from state.redis_calls import WAIT_S, RedisCalls
from tests.contract.backends import until
from tests.contract.cable import Cable, cable_to
from tests.services.native import Service


@asynccontextmanager
async def open_cache(url: str) -> AsyncIterator[RedisAnswerCache]:
    async with RedisCalls.open(url) as calls:
        yield RedisAnswerCache(calls)


Cache = MemoryAnswerCache | RedisAnswerCache
ANSWER = b'\x00{"reply": "yes"}\n\xff'


class AnswerCacheContract:
    async def test_what_was_put_is_got_byte_for_byte(self, cache: Cache) -> None:
        await cache.put("north", "d1", ANSWER, 60)
        assert await cache.get("north", "d1") == ANSWER

    async def test_an_unknown_request_is_a_miss(self, cache: Cache) -> None:
        await cache.put("north", "d1", ANSWER, 60)
        assert await cache.get("north", "d2") is None

    async def test_one_tenants_answer_is_not_anothers(self, cache: Cache) -> None:
        await cache.put("north", "d1", ANSWER, 60)
        assert await cache.get("south", "d1") is None
        assert await cache.get("north:d1", "d1") is None

    async def test_the_newest_answer_is_given(self, cache: Cache) -> None:
        await cache.put("north", "d1", b"old", 60)
        await cache.put("north", "d1", b"new", 60)
        assert await cache.get("north", "d1") == b"new"

    async def test_an_answer_is_gone_when_its_time_is_up(self, cache: Cache) -> None:
        await cache.put("north", "d1", ANSWER, 0.2)

        async def gone() -> bool:
            return await cache.get("north", "d1") is None

        await until(gone, limit_s=2)

    async def test_an_answer_may_be_empty(self, cache: Cache) -> None:
        await cache.put("north", "d1", b"", 60)
        assert await cache.get("north", "d1") == b""


class TestInMemory(AnswerCacheContract):
    @pytest.fixture
    def cache(self) -> MemoryAnswerCache:
        return MemoryAnswerCache()


@pytest.mark.redis
class TestOnRedis(AnswerCacheContract):
    @pytest.fixture
    async def cache(self, redis_url: str) -> AsyncIterator[RedisAnswerCache]:
        async with open_cache(redis_url) as cache:
            yield cache

    @pytest.fixture
    async def cable(self, redis_url: str) -> AsyncIterator[Cable]:
        address = urlsplit(redis_url)
        assert address.hostname is not None
        assert address.port is not None
        async with cable_to(address.hostname, address.port) as cable:
            yield cable

    async def test_answers_kept_together_expire_apart_and_none_too_late(
        self, cache: RedisAnswerCache, redis_url: str
    ) -> None:
        for n in range(20):
            await cache.put("north", f"d{n}", ANSWER, 1000)
        async with Redis.from_url(redis_url) as client:
            left_ms = [await client.pttl(key) async for key in client.scan_iter()]
        assert len(left_ms) == 20
        assert 700_000 < min(left_ms) < max(left_ms) <= 1_000_000
        assert max(left_ms) - min(left_ms) > 10_000

    async def test_a_server_that_is_away_is_a_miss_and_a_warning(
        self, cache: RedisAnswerCache, redis_server: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.put("north", "d1", ANSWER, 60)
        redis_server.kill()
        assert await cache.get("north", "d1") is None
        await cache.put("north", "d1", ANSWER, 60)
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        redis_server.heal()

        async def kept_again() -> bool:
            await cache.put("north", "d2", ANSWER, 60)
            return await cache.get("north", "d2") == ANSWER

        await until(kept_again, limit_s=5)

    async def test_a_server_that_is_not_there_at_the_start_is_a_miss(self) -> None:
        async with open_cache("redis://127.0.0.1:1/0") as cache:
            assert await cache.get("north", "d1") is None

    async def test_a_frozen_server_holds_nobody_up(self, cache: RedisAnswerCache, redis_server: Service) -> None:
        redis_server.pause()
        began = time.monotonic()
        answers = await asyncio.gather(*(cache.get("north", f"d{n}") for n in range(100)))
        assert set(answers) == {None}
        assert time.monotonic() - began < 4 * WAIT_S

    async def test_forgetting_everything_is_a_miss(self, cache: RedisAnswerCache, redis_url: str) -> None:
        await cache.put("north", "d1", ANSWER, 60)
        async with Redis.from_url(redis_url) as client:
            await client.flushall()
        assert await cache.get("north", "d1") is None

    @pytest.mark.parametrize("is_cancelled", [True, False])
    async def test_a_late_reply_never_reaches_the_next_caller(
        self, cache: RedisAnswerCache, cable: Cable, is_cancelled: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first caller gives up, by cancellation or time-out, while its reply is on the way: it went to whoever
        had the connection next (redis-py#2665, CVE-2023-28858, CVE-2023-28859)."""
        await cache.put("north", "theirs", b"another customer's answer", 60)
        await cache.put("north", "mine", b"mine", 60)
        async with open_cache(f"redis://127.0.0.1:{cable.port}/0") as far:
            assert await far.get("north", "mine") == b"mine"
            cable.answers.clear()
            first = asyncio.create_task(far.get("north", "theirs"))
            await cable.held.wait()
            if is_cancelled:
                first.cancel()
            outcome = (await asyncio.gather(first, return_exceptions=True))[0]
            assert isinstance(outcome, asyncio.CancelledError) if is_cancelled else outcome is None
            cable.answers.set()

            async def back() -> bool:
                return await far.get("north", "mine") == b"mine"

            await until(back, limit_s=5)
            caplog.clear()
            assert [await far.get("north", "mine") for _ in range(5)] == [b"mine"] * 5
            assert [await far.get("north", "unknown") for _ in range(5)] == [None] * 5
            assert caplog.records == []

    async def test_callers_cancelled_at_any_moment_leave_the_cache_sound(
        self, cache: RedisAnswerCache, cable: Cable
    ) -> None:
        """redis-py#2665, at every await."""
        for n in range(10):
            await cache.put("north", f"d{n}", f"answer {n}".encode(), 60)
        async with open_cache(f"redis://127.0.0.1:{cable.port}/0") as far:
            for round_ in range(30):
                tasks = [asyncio.create_task(far.get("north", f"d{n}")) for n in range(10)]
                for _ in range(round_):  # a different await each round
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                got = await asyncio.gather(*tasks, return_exceptions=True)
                assert got[1::2] == [f"answer {n}".encode() for n in range(1, 10, 2)]
            got = await asyncio.gather(*(far.get("north", f"d{n % 10}") for n in range(100)))
            assert got == [f"answer {n % 10}".encode() for n in range(100)]

    async def test_another_keys_value_is_never_given(
        self, cache: RedisAnswerCache, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        await cache.put("north", "theirs", b"another customer's answer", 60)
        async with Redis.from_url(redis_url) as client:
            await client.rename("answer:theirs:north", "answer:mine:north")
        assert await cache.get("north", "mine") is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    async def test_a_key_that_holds_something_else_is_a_miss(self, cache: RedisAnswerCache, redis_url: str) -> None:
        async with Redis.from_url(redis_url) as client:
            await client.lpush("answer:d1:north", "x")
        assert await cache.get("north", "d1") is None


@pytest.mark.parametrize("url", ["http://u:sesame@h", "redis://u:sesame@h:port/0"])
async def test_a_malformed_url_is_misconfigured_and_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        async with open_cache(url):
            pass
    assert "sesame" not in str(caught.value)
