"""That a script's answer reaches who asked, whoever gives up meanwhile, and that Redis may come and go."""

import asyncio
import random
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from contracts.errors import StoreUnavailable
from state.redis_calls import WAIT_S, RedisCalls, Script
from tests.contract.backends import until
from tests.contract.cable import Cable, cable_to
from tests.services.native import Service

pytestmark = pytest.mark.redis

SAY = Script("return ARGV[1]")
COUNT = Script("return redis.call('INCR', KEYS[1])")
BROKEN = Script("return redis.call('NO SUCH COMMAND')")


@pytest.fixture
async def calls(redis_url: str) -> AsyncIterator[RedisCalls]:
    async with RedisCalls.open(redis_url) as calls:
        yield calls


@pytest.fixture
async def cable(redis_url: str) -> AsyncIterator[Cable]:
    address = urlsplit(redis_url)
    assert address.hostname is not None
    assert address.port is not None
    async with cable_to(address.hostname, address.port) as cable:
        yield cable


async def test_what_is_asked_at_once_is_answered_to_each(calls: RedisCalls) -> None:
    said = [f"word {n}" for n in range(1000)]
    assert await asyncio.gather(*(calls.run(SAY, [], [word]) for word in said)) == [word.encode() for word in said]


async def test_a_server_that_forgot_its_scripts_is_told_them_again(calls: RedisCalls, redis_url: str) -> None:
    await calls.run(SAY, [], ["once"])
    async with Redis.from_url(redis_url) as client:
        await client.script_flush()
    assert await calls.run(SAY, [], ["again"]) == b"again"


async def test_a_script_that_fails_fails_alone(calls: RedisCalls) -> None:
    outcomes = await asyncio.gather(
        *(calls.run(script, [], ["x"]) for script in (SAY, BROKEN, SAY)), return_exceptions=True
    )
    assert outcomes[::2] == [b"x", b"x"]
    assert isinstance(outcomes[1], StoreUnavailable)


async def test_of_ten_thousand_calls_cancelled_at_random_none_gets_anothers_answer(
    calls: RedisCalls, cable: Cable
) -> None:
    """A cancelled command's reply stayed on its connection for whoever had it next.

    Source: redis-py#2665, CVE-2023-28858, CVE-2023-28859; the repro delays replies in a proxy, as here.
    """
    chance = random.Random(7)
    answered = 0
    async with RedisCalls.open(f"redis://127.0.0.1:{cable.port}/0") as far:
        for first in range(0, 10_000, 250):
            if chance.random() < 0.5:
                cable.answers.clear()
            tasks = {n: asyncio.create_task(far.run(SAY, [], [str(n)])) for n in range(first, first + 250)}
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            for n in chance.sample(sorted(tasks), 100):
                tasks[n].cancel()
            cable.answers.set()
            for n, outcome in zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True):
                assert isinstance(outcome, asyncio.CancelledError) or outcome == str(n).encode()
                answered += outcome == str(n).encode()
    assert answered >= 6_000  # some were answered before they could be cancelled


async def test_a_frozen_server_is_away_for_all_and_back_by_itself(calls: RedisCalls, redis_server: Service) -> None:
    await calls.run(SAY, [], ["before"])
    redis_server.pause()
    began = asyncio.get_running_loop().time()
    outcomes = await asyncio.gather(*(calls.run(SAY, [], ["x"]) for _ in range(500)), return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert asyncio.get_running_loop().time() - began < 5 * WAIT_S
    with pytest.raises(StoreUnavailable):  # and asked again only after a while
        await calls.run(SAY, [], ["x"])
    redis_server.heal()

    async def back() -> bool:
        try:
            return bool(await calls.run(SAY, [], ["after"]) == b"after")
        except StoreUnavailable:
            return False

    await until(back, limit_s=5)


async def test_a_connection_cut_while_idle_costs_nobody_anything(calls: RedisCalls, redis_url: str) -> None:
    await calls.run(COUNT, ["count"])
    async with Redis.from_url(redis_url) as client:
        await client.client_kill_filter(_type="normal", skipme=True)
    assert await calls.run(COUNT, ["count"]) == 2
