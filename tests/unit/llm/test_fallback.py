"""Which model is asked next, what is told of each try, and what becomes of an outage."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from contracts.errors import (
    ModelDenied,
    ModelKeyRefused,
    ModelOverloaded,
    ModelRateLimited,
    ModelRefused,
    ModelsAway,
    ModelUnavailable,
    UsageUnknown,
)
from contracts.models import Degrade
from contracts.values import Tier
from state.breakers import BreakerOptions, MemoryBreakers
from state.model_calls import MemoryModelCalls
from tests.unit.llm.kit import CALL, REQUEST, asked_for, shared
from tests.unit.llm.scripted_providers import GOOD, UNSURE, Told, over

AWAY = [ModelOverloaded("529"), ModelUnavailable("500"), UsageUnknown("cut"), ModelRefused("404")]
OPENS = BreakerOptions(failures=2, share=0.5, open_s=5)


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
async def test_the_next_model_answers_when_one_cannot(error: Exception) -> None:
    first, second = Told(error), Told()
    answer = await over(first, second).ask(REQUEST, CALL)
    assert answer.calls[0].provider == "own1"
    assert (len(first.prompts), len(second.prompts)) == (1, 1)


async def test_each_try_is_a_row_of_its_own_and_only_what_may_be_paid_costs() -> None:
    book = MemoryModelCalls()
    await over(Told(UsageUnknown("cut")), Told(ModelUnavailable("500")), Told(), links=shared(book=book)).ask(
        REQUEST, CALL
    )
    told = [(made.outcome, made.estimated, made.cost_usd > 0) for _, made in book.finished.values()]
    assert told == [("unavailable", True, True), ("unavailable", False, False), ("ok", False, True)]


async def test_an_answer_without_usage_is_charged_what_was_held_and_marked() -> None:
    book = MemoryModelCalls()
    (call,) = (await over(Told(None), links=shared(book=book)).ask(REQUEST, CALL)).calls
    assert call.estimated
    assert call.output_tokens == REQUEST.max_output_tokens
    assert call.cost_usd == Decimal(call.input_tokens + call.output_tokens) / 1000


async def test_a_call_that_is_cancelled_is_charged_what_was_held() -> None:
    book, slow = MemoryModelCalls(), Told(wait_s=30)
    asking = asyncio.create_task(over(slow, links=shared(book=book)).ask(REQUEST, CALL))
    await slow.asked.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    ((_, made),) = book.finished.values()
    assert (made.outcome, made.estimated) == ("cancelled", True)


async def test_when_none_can_answer_the_error_is_the_one_worth_waiting_for() -> None:
    with pytest.raises(ModelUnavailable):
        await over(Told(ModelRefused("404")), Told(ModelUnavailable("500"))).ask(REQUEST, CALL)
    with pytest.raises(ModelRefused):
        await over(Told(ModelRefused("404"))).ask(REQUEST, CALL)


async def test_a_short_deadline_leaves_the_last_model_its_part() -> None:
    first, second = Told(), Told()
    call = replace(CALL, deadline=datetime.now(UTC) + timedelta(seconds=10))
    first.script = [ModelUnavailable("500")]
    await over(first, second).ask(REQUEST, call)
    assert 4 < first.prompts[0].timeout_s <= 5
    assert 9 < second.prompts[0].timeout_s <= 10


# --- keys ---


async def test_a_refused_key_is_taken_out_and_named_by_its_end(caplog: pytest.LogCaptureFixture) -> None:
    refused, good = Told(ModelKeyRefused("401")), Told()
    gateway = over([refused, good])
    for number in range(6):
        await gateway.ask(REQUEST, asked_for(f"e{number}"))
    assert (len(refused.prompts), len(good.prompts)) == (1, 6)
    assert "key …ey-0 of own0 is taken out" in caplog.text


async def test_a_key_without_money_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    broke = Told(ModelKeyRefused("insufficient_quota", quota=True))
    gateway = over(broke)
    for _ in range(3):
        with pytest.raises(ModelsAway):
            await gateway.ask(REQUEST, CALL)
    assert len(broke.prompts) == 1


async def test_a_key_that_has_had_enough_is_waited_for_as_long_as_it_says() -> None:
    key = Told(ModelRateLimited("429", retry_after_s=0.3), GOOD)
    began = time.monotonic()
    assert (await over(key).ask(REQUEST, CALL)).value.label == "account"
    assert time.monotonic() - began >= 0.3


async def test_another_key_is_asked_instead_of_waiting() -> None:
    tired, fresh = Told(ModelRateLimited("429", retry_after_s=60)), Told()
    gateway = over([tired, fresh])
    for number in range(4):
        await gateway.ask(REQUEST, asked_for(f"e{number}"))
    assert len(tired.prompts) <= 1


# --- breakers ---


async def test_a_model_that_does_not_answer_is_left_alone_and_the_next_one_asked() -> None:
    dead, alive = Told(ModelUnavailable("500")), Told()
    gateway = over(dead, alive, links=shared(breakers=MemoryBreakers(OPENS)))
    for number in range(10):
        await gateway.ask(REQUEST, asked_for(f"e{number}"))
    assert (len(dead.prompts), len(alive.prompts)) == (2, 10)
    assert not gateway.is_away()


async def test_with_all_models_away_no_try_is_spent_and_the_engine_is_told() -> None:
    """A breaker with a single deployment in the tier works like any other. Source: litellm#40405."""
    dead = Told(ModelUnavailable("500"))
    gateway = over(dead, links=shared(breakers=MemoryBreakers(OPENS)))
    with pytest.raises(ModelUnavailable):
        await gateway.ask(REQUEST, CALL)
    for _ in range(5):
        with pytest.raises(ModelsAway) as caught:
            await gateway.ask(REQUEST, CALL)
        assert 0 < (caught.value.retry_after_s or 0) <= 5
    assert len(dead.prompts) == 2
    assert gateway.is_away()


async def test_a_probe_that_is_answered_brings_the_model_back() -> None:
    now = [0.0]
    waking = Told(ModelUnavailable("500"), ModelUnavailable("500"), GOOD)
    quick = BreakerOptions(failures=2, share=0.5, open_s=0.05)
    gateway = over(waking, links=shared(breakers=MemoryBreakers(quick)))
    for _ in range(2):
        with pytest.raises((ModelUnavailable, ModelsAway)):
            await gateway.ask(REQUEST, CALL)
    async with asyncio.timeout(30):
        while gateway.is_away():
            await asyncio.sleep(0.01)
    await gateway.ask(REQUEST, CALL)
    assert (len(waking.prompts), now) == (3, [0.0])


@pytest.mark.parametrize("error", [ModelRateLimited("429", retry_after_s=0), ModelRefused("400")])
async def test_a_provider_that_refuses_is_alive(error: Exception) -> None:
    breakers = MemoryBreakers(OPENS)
    gateway = over(Told(error), links=shared(breakers=breakers))
    for _ in range(4):
        with pytest.raises((ModelRateLimited, ModelRefused)):
            await gateway.ask(REQUEST, CALL)
    assert not gateway.is_away()


# --- tiers ---


async def test_an_unsure_answer_is_asked_of_the_next_tier_at_the_cost_of_both() -> None:
    fast, strong = Told(UNSURE), Told(GOOD)
    gateway = over(tiers={Tier.FAST: [fast], Tier.STRONG: [strong]})
    answer = await gateway.ask(replace(REQUEST, escalate_below={Tier.FAST: 0.5}), CALL)
    assert answer.value.confidence == 0.9
    assert [call.tier for call in answer.calls] == [Tier.FAST, Tier.STRONG]


async def test_a_sure_answer_is_not() -> None:
    fast, strong = Told(GOOD), Told(GOOD)
    await over(tiers={Tier.FAST: [fast], Tier.STRONG: [strong]}).ask(
        replace(REQUEST, escalate_below={Tier.FAST: 0.5}), CALL
    )
    assert not strong.prompts


async def test_an_unsure_answer_of_the_last_tier_stands() -> None:
    answer = await over(Told(UNSURE)).ask(replace(REQUEST, escalate_below={Tier.FAST: 0.5}), CALL)
    assert answer.value.confidence == 0.2


async def test_an_agent_may_want_a_cheaper_model_or_a_person_when_none_answers() -> None:
    strong, fast = Told(ModelKeyRefused("401")), Told()
    gateway = over(tiers={Tier.STRONG: [strong], Tier.FAST: [fast]})
    request = replace(REQUEST, tier=Tier.STRONG)
    assert (await gateway.ask(replace(request, on_outage=Degrade.CHEAPER), CALL)).calls[0].tier is Tier.FAST
    with pytest.raises(ModelDenied):
        await gateway.ask(replace(request, on_outage=Degrade.PERSON), CALL)
    with pytest.raises(ModelsAway):
        await gateway.ask(replace(request, on_outage=Degrade.WAIT), CALL)
