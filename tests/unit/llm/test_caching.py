"""One flight for a question, whoever asks it, and what becomes of those who wait."""

import asyncio
from dataclasses import replace

from contracts.errors import ModelUnavailable
from contracts.models import Reuse
from state.answer_cache import MemoryAnswerCache
from tests.unit.llm.kit import CALL, REQUEST, asked_for, shared
from tests.unit.llm.scripted_providers import GOOD, Told, over


class DeadLeader(MemoryAnswerCache):
    """Flights that somebody led who died a moment ago."""

    refused = 0

    async def lead(self, key: str, owner: str, *, lease_s: float) -> bool:
        if not self.refused:
            await super().lead(key, "dead", lease_s=0.1)
        led = await super().lead(key, owner, lease_s=lease_s)
        DeadLeader.refused += not led
        return led


AGAIN = replace(REQUEST, reuse=Reuse.TENANT)


async def test_many_who_ask_at_once_buy_one_answer_and_one_of_them_pays() -> None:
    slow = Told(wait_s=0.05)
    gateway = over(slow)
    answers = await asyncio.gather(*(gateway.ask(AGAIN, asked_for(f"e{n}")) for n in range(50)))
    assert len(slow.prompts) == 1
    assert sorted(len(answer.calls) for answer in answers) == [0] * 49 + [1]


async def test_two_processes_buy_one_answer() -> None:
    slow, cache = Told(wait_s=0.05), MemoryAnswerCache()
    gateways = [over(slow, links=shared(cache=cache, flights=cache)) for _ in range(4)]
    await asyncio.gather(*(gateway.ask(AGAIN, asked_for(f"e{n}")) for n, gateway in enumerate(gateways)))
    assert len(slow.prompts) == 1


async def test_a_waiter_takes_over_when_its_leader_is_cancelled() -> None:
    slow = Told(wait_s=0.1)
    gateway = over(slow)
    leader = asyncio.create_task(gateway.ask(AGAIN, asked_for("leader")))
    await slow.asked.wait()
    waiter = asyncio.create_task(gateway.ask(AGAIN, asked_for("waiter")))
    await asyncio.sleep(0)
    leader.cancel()
    assert len((await waiter).calls) == 1
    assert len(slow.prompts) == 2


async def test_a_process_takes_over_when_the_leading_one_is_gone() -> None:
    provider, cache = Told(), DeadLeader()
    gateway = over(provider, links=shared(cache=cache, flights=cache))
    await gateway.ask(AGAIN, CALL)
    assert cache.refused > 0
    assert len(provider.prompts) == 1


async def test_a_failure_is_told_to_who_asked_and_the_others_ask_themselves() -> None:
    flaky = Told(ModelUnavailable("500"), GOOD, wait_s=0.02)
    gateway = over(flaky)
    outcomes = await asyncio.gather(
        *(gateway.ask(AGAIN, asked_for(f"e{n}")) for n in range(10)), return_exceptions=True
    )
    assert sum(isinstance(outcome, ModelUnavailable) for outcome in outcomes) == 1
    assert len(flaky.prompts) == 2


async def test_an_answer_is_shared_between_tenants_only_where_the_agent_says_so() -> None:
    provider = Told()
    gateway = over(provider)
    for reuse, calls in ((Reuse.TENANT, 2), (Reuse.SHARED, 3)):
        for tenant in ("north", "south"):
            await gateway.ask(replace(AGAIN, reuse=reuse), asked_for(f"{reuse}-{tenant}", tenant_id=tenant))
        assert len(provider.prompts) == calls


async def test_another_model_is_another_question() -> None:
    cache = MemoryAnswerCache()
    first, second = Told(), Told()
    await over(first, links=shared(cache=cache, flights=cache)).ask(AGAIN, CALL)
    await over(Told(ModelUnavailable("500")), second, links=shared(cache=cache, flights=cache)).ask(
        AGAIN, asked_for("e2")
    )
    assert len(second.prompts) == 1
