"""The gateway over the stand-in: the ledger tells what was bought."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contracts.errors import (
    Misconfigured,
    ModelAnswerUnusable,
    ModelOverloaded,
    ModelRefused,
    ModelUnavailable,
    StoreUnavailable,
)
from contracts.model_ports import Entry, ProviderCall
from contracts.models import CallContext, ModelCall, Reuse
from contracts.values import Label, Tier
from llm import buying
from llm.gateway import Gateway
from llm.provider import Completion, Prompt
from llm.standin.faults import Kind, Rule
from ops.models import gateway_over
from ops.settings import LlmSettings, ModelPrice
from state.answer_cache import MemoryAnswerCache
from state.journal import MemoryJournal
from state.model_calls import MemoryModelCalls
from tests.unit.llm.kit import (
    CALL,
    FAST_MODEL,
    REQUEST,
    STRONG_MODEL,
    StandIn,
    asked_for,
    open_gateway,
    shared,
    target,
)

CACHEABLE = replace(REQUEST, reuse=Reuse.TENANT)


# --- a call and its price ---


async def test_an_answer_is_valid_and_names_the_paid_call_behind_it(protocol: str, standin: StandIn) -> None:
    async with open_gateway(protocol, standin.base_url) as gateway:
        answer = await gateway.ask(REQUEST, CALL)

    (call,) = answer.calls
    (entry,) = standin.ledger.entries()
    assert answer.value.label is Label.COMPLAINT
    assert (call.call_id, call.step, call.tier, call.provider) == (entry["id"], "classify", Tier.FAST, protocol)
    assert (call.model, call.outcome) == (FAST_MODEL[protocol], "ok")
    assert call.cost_usd > 0
    assert 0 < call.latency_s < 10


async def test_each_tier_goes_to_its_own_model(protocol: str, standin: StandIn) -> None:
    async with open_gateway(protocol, standin.base_url) as gateway:
        await gateway.ask(REQUEST, CALL)
        await gateway.ask(replace(REQUEST, tier=Tier.STRONG), CALL)
    assert [e["model"] for e in standin.ledger.entries()] == [FAST_MODEL[protocol], STRONG_MODEL[protocol]]


async def test_a_tier_without_a_route_is_a_wrong_configuration() -> None:
    gateway = gateway_over({}, LlmSettings(), shared())
    with pytest.raises(Misconfigured, match="fast"):
        await gateway.ask(REQUEST, CALL)


def test_a_model_without_a_price_ends_the_start() -> None:
    targets = {tier: [target(OneAnswer(""), "openai", "gpt-of-tomorrow")] for tier in Tier}
    with pytest.raises(Misconfigured, match="gpt-of-tomorrow"):
        gateway_over(targets, LlmSettings(), shared())


# --- repair ---


@pytest.mark.parametrize("kind", [Kind.MALFORMED, Kind.EMPTY, Kind.OUT_OF_SET, Kind.HUGE])
async def test_a_bad_answer_is_repaired_and_both_calls_are_told(protocol: str, standin: StandIn, kind: Kind) -> None:
    standin.faults.replace([Rule(kind, times=1)])
    async with open_gateway(protocol, standin.base_url) as gateway:
        answer = await gateway.ask(REQUEST, CALL)
    assert answer.value.label is Label.COMPLAINT
    assert [call.outcome for call in answer.calls] == ["malformed", "ok"]
    assert standin.paid_calls() == 2


@pytest.mark.parametrize("kind", [Kind.MALFORMED, Kind.EMPTY, Kind.OUT_OF_SET, Kind.HUGE])
async def test_a_second_bad_answer_is_the_last(protocol: str, standin: StandIn, kind: Kind) -> None:
    standin.faults.replace([Rule(kind)])
    async with open_gateway(protocol, standin.base_url) as gateway:
        with pytest.raises(ModelAnswerUnusable) as caught:
            await gateway.ask(REQUEST, CALL)
    assert [call.outcome for call in caught.value.calls] == ["malformed", "malformed"]
    assert {call.call_id for call in caught.value.calls} == {e["id"] for e in standin.ledger.entries()}
    assert standin.paid_calls() == 2


async def test_the_repair_of_a_huge_answer_does_not_send_it_back_whole(protocol: str, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.HUGE, times=1)])
    async with open_gateway(protocol, standin.base_url) as gateway:
        await gateway.ask(REQUEST, CALL)
    assert standin.ledger.entries()[1]["input_tokens"] < 1000


async def test_a_refused_repair_still_tells_what_was_paid(protocol: str, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.MALFORMED, times=1), Rule(Kind.REFUSED)])
    async with open_gateway(protocol, standin.base_url) as gateway:
        with pytest.raises(ModelAnswerUnusable) as caught:
            await gateway.ask(REQUEST, CALL)
    assert [call.outcome for call in caught.value.calls] == ["malformed"]


async def test_an_overloaded_repair_is_taken_up_again_without_buying_the_first_answer(
    protocol: str, standin: StandIn
) -> None:
    standin.faults.replace([Rule(Kind.MALFORMED, times=1), Rule(Kind.OVERLOADED, times=1)])
    async with open_gateway(protocol, standin.base_url) as gateway:
        with pytest.raises(ModelOverloaded):
            await gateway.ask(REQUEST, CALL)
        answer = await gateway.ask(REQUEST, CALL)
    assert [call.outcome for call in answer.calls] == ["malformed", "ok"]
    assert standin.paid_calls() == 2


# --- the journal ---


async def test_the_same_question_of_the_same_event_is_not_bought_again(protocol: str, standin: StandIn) -> None:
    async with open_gateway(protocol, standin.base_url) as gateway:
        first = await gateway.ask(REQUEST, CALL)
        second = await gateway.ask(REQUEST, CALL)
    assert second == first  # the calls too: their cost belongs to this event
    assert standin.calls() == 1


@pytest.mark.parametrize(
    ("request_", "call"),
    [
        (replace(REQUEST, content="another"), CALL),
        (REQUEST, asked_for("e2")),
        (REQUEST, replace(CALL, step="summarise")),
    ],
)
async def test_another_question_event_or_step_is_another_purchase(
    standin: StandIn, request_: object, call: CallContext
) -> None:
    async with open_gateway("anthropic", standin.base_url) as gateway:
        await gateway.ask(REQUEST, CALL)
        await gateway.ask(request_, call)
    assert standin.paid_calls() == 2


async def test_a_crash_between_the_call_and_the_save_buys_nothing_again(protocol: str, standin: StandIn) -> None:
    journal = MemoryJournal()
    async with open_gateway(protocol, standin.base_url, journal=journal) as gateway:
        first = await gateway.ask(REQUEST, CALL)
    # The process is gone; only what the journal holds is left.
    async with open_gateway(protocol, standin.base_url, journal=journal) as gateway:
        assert await gateway.ask(REQUEST, CALL) == first
    assert standin.calls() == 1


async def test_a_crash_between_answer_and_repair_buys_only_the_repair(protocol: str, standin: StandIn) -> None:
    journal = MemoryJournal()
    standin.faults.replace([Rule(Kind.MALFORMED, times=1), Rule(Kind.SERVER_ERROR, times=1)])
    async with open_gateway(protocol, standin.base_url, journal=journal) as gateway:
        with pytest.raises(ModelUnavailable):
            await gateway.ask(REQUEST, CALL)
    async with open_gateway(protocol, standin.base_url, journal=journal) as gateway:
        answer = await gateway.ask(REQUEST, CALL)
        assert await gateway.ask(REQUEST, CALL) == answer
    assert [call.outcome for call in answer.calls] == ["malformed", "ok"]
    assert standin.paid_calls() == 2


async def test_a_long_answer_comes_back_whole_and_a_huge_one_does_not_fill_the_journal() -> None:
    journal = MemoryJournal()
    long_answer = json.dumps({"label": "account", "confidence": 1, "note": "n" * 200_000})
    gateway = one_model(OneAnswer(long_answer), journal)
    assert await gateway.ask(REQUEST, CALL) == await gateway.ask(REQUEST, CALL)

    huge = one_model(OneAnswer("x" * 5_000_000), journal)
    with pytest.raises(ModelAnswerUnusable):
        await huge.ask(REQUEST, asked_for("e2"))
    (kept,) = [answer for key, answer in journal.entries() if key[0] == "e2"][:1]
    assert len(kept) < 300_000


async def test_two_bad_answers_are_remembered_too(protocol: str, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.HUGE)])
    async with open_gateway(protocol, standin.base_url) as gateway:
        for _ in range(2):
            with pytest.raises(ModelAnswerUnusable) as caught:
                await gateway.ask(REQUEST, CALL)
            assert len(caught.value.calls) == 2
    assert standin.paid_calls() == 2


class Unreachable(MemoryModelCalls):
    """A book that is away for so many tries."""

    def __init__(self, away: int) -> None:
        super().__init__()
        self.away = away

    async def finish(self, call: ProviderCall, made: ModelCall, answer: Entry | None) -> None:
        self.away -= 1
        if self.away >= 0:
            raise StoreUnavailable("gone")
        await super().finish(call, made, answer)


async def test_a_paid_answer_that_cannot_be_kept_is_neither_given_nor_cached(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buying, "_PATIENCE_S", 0.1)
    cache = MemoryAnswerCache()
    async with open_gateway("openai", standin.base_url, book=Unreachable(away=1000), cache=cache) as gateway:
        with pytest.raises(StoreUnavailable):
            await gateway.ask(CACHEABLE, CALL)
    assert not cache.entries()


async def test_a_paid_answer_waits_for_the_book_to_come_back(standin: StandIn) -> None:
    book = Unreachable(away=3)
    async with open_gateway("openai", standin.base_url, book=book) as gateway:
        assert (await gateway.ask(REQUEST, CALL)).value.label is Label.COMPLAINT
    assert (standin.paid_calls(), len(book.finished)) == (1, 1)


# --- the cache ---


async def test_a_cacheable_answer_is_given_again_without_a_call(protocol: str, standin: StandIn) -> None:
    async with open_gateway(protocol, standin.base_url) as gateway:
        first = await gateway.ask(CACHEABLE, CALL)
        second = await gateway.ask(CACHEABLE, asked_for("e2"))
    assert second.value == first.value
    assert (len(first.calls), second.calls) == (1, ())
    assert standin.calls() == 1


async def test_one_tenants_answer_is_never_given_to_another(standin: StandIn) -> None:
    async with open_gateway("anthropic", standin.base_url) as gateway:
        await gateway.ask(CACHEABLE, CALL)
        await gateway.ask(CACHEABLE, asked_for("e2", tenant_id="other"))
    assert standin.paid_calls() == 2


async def test_what_is_not_cacheable_is_not_cached(standin: StandIn) -> None:
    async with open_gateway("anthropic", standin.base_url) as gateway:
        await gateway.ask(REQUEST, CALL)
        await gateway.ask(REQUEST, asked_for("e2"))
    assert standin.paid_calls() == 2


async def test_a_repaired_answer_is_cached_and_a_bad_one_is_not(standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.MALFORMED, times=1)])
    async with open_gateway("openai", standin.base_url) as gateway:
        await gateway.ask(CACHEABLE, CALL)
        assert (await gateway.ask(CACHEABLE, asked_for("e2"))).calls == ()
    assert standin.paid_calls() == 2


async def test_an_unusable_answer_is_not_cached(standin: StandIn) -> None:
    cache = MemoryAnswerCache()
    standin.faults.replace([Rule(Kind.OUT_OF_SET)])
    async with open_gateway("openai", standin.base_url, cache=cache) as gateway:
        with pytest.raises(ModelAnswerUnusable):
            await gateway.ask(CACHEABLE, CALL)
    assert not cache.entries()


async def test_the_event_that_paid_keeps_its_calls_when_it_is_handled_again(standin: StandIn) -> None:
    async with open_gateway("openai", standin.base_url) as gateway:
        first = await gateway.ask(CACHEABLE, CALL)
        assert await gateway.ask(CACHEABLE, CALL) == first


SPOILED = [
    b"\xff",
    b"null",
    b'{"text": "{}", "cost_usd": "0"}',
    b'{"text": "{\\"label\\": \\"none_of_these\\"}", "cost_usd": "0"}',
    b'{"text": "x", "cost_usd": "much"}',
    b'{"label": "complaint", "confidence": 1}',
]


async def test_a_spoiled_cache_entry_costs_a_call_and_no_wrong_answer(standin: StandIn) -> None:
    cache = MemoryAnswerCache()
    async with open_gateway("openai", standin.base_url, cache=cache) as gateway:
        await gateway.ask(CACHEABLE, CALL)
        for number, spoiled in enumerate(SPOILED):
            ((tenant_id, digest),) = cache.entries()
            await cache.put(tenant_id, digest, spoiled, 60)
            assert len((await gateway.ask(CACHEABLE, asked_for(f"again-{number}"))).calls) == 1


# --- time ---


@pytest.mark.parametrize("left_s", [-60, 0.2])
async def test_the_deadline_bounds_the_call_but_leaves_it_a_second(standin: StandIn, left_s: float) -> None:
    standin.faults.replace([Rule(Kind.SLOW, seconds=3)])
    call = replace(CALL, deadline=datetime.now(UTC) + timedelta(seconds=left_s))
    started_s = time.monotonic()
    async with open_gateway("openai", standin.base_url) as gateway:
        with pytest.raises(ModelUnavailable):
            await gateway.ask(REQUEST, call)
    assert 0.9 < time.monotonic() - started_s < 5


async def test_without_a_deadline_the_default_bounds_the_call(standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.SLOW, seconds=3)])
    async with open_gateway("openai", standin.base_url, settings=LlmSettings(timeout_s=0.2)) as gateway:
        with pytest.raises(ModelUnavailable):
            await gateway.ask(REQUEST, CALL)


async def test_sixty_questions_at_once_are_all_answered(protocol: str, standin: StandIn) -> None:
    async with open_gateway(protocol, standin.base_url) as gateway:
        answers = await asyncio.gather(*(gateway.ask(REQUEST, asked_for(f"e{n}")) for n in range(60)))
    assert len({answer.calls[0].call_id for answer in answers}) == standin.paid_calls() == 60


# --- what is shown of it ---


async def test_a_span_tells_the_call_and_none_of_its_words(protocol: str, standin: StandIn) -> None:
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    standin.faults.replace([Rule(Kind.REFUSED, text="forbidden")])
    async with open_gateway(protocol, standin.base_url, tracer=tracers.get_tracer("test")) as gateway:
        (call,) = (await gateway.ask(REQUEST, CALL)).calls
        with pytest.raises(ModelRefused):
            await gateway.ask(replace(REQUEST, content="forbidden"), CALL)

    answered, refused = exporter.get_finished_spans()
    told = dict(answered.attributes or {})
    assert answered.name == f"chat {FAST_MODEL[protocol]}"
    assert told["gen_ai.provider.name"] == protocol
    assert told["gen_ai.usage.input_tokens"] == call.input_tokens
    assert told["gen_ai.usage.output_tokens"] == call.output_tokens
    assert (refused.attributes or {})["error.type"] == "ModelRefused"
    assert not refused.status.is_ok
    assert not refused.events  # an exception's event would hold its message and its traceback
    shown = json.dumps([span.to_json() for span in (answered, refused)])
    assert all(words not in shown for words in ("parcel", "Choose a label", "complaint", "forbidden"))


class OneAnswer:
    """A provider in memory that accounts as it is told to."""

    def __init__(self, text: str, **tokens: int) -> None:
        self._completion = Completion(text, "c1", "a-model", **{"input_tokens": 0, "output_tokens": 0, **tokens})

    async def complete(self, prompt: Prompt) -> Completion:
        return self._completion


def one_model(
    provider: OneAnswer, journal: MemoryJournal, name: str = "anthropic", model: str = "claude-haiku-4-5"
) -> Gateway:
    settings = LlmSettings(prices={"own:tiny": ModelPrice(input=2, output=4)})
    return gateway_over({tier: [target(provider, name, model)] for tier in Tier}, settings, shared(journal))


async def test_cached_input_is_priced_as_such() -> None:
    provider = OneAnswer(
        '{"label": "account", "confidence": 1}',
        input_tokens=3000,
        output_tokens=100,
        cache_read_tokens=1500,
        cache_write_tokens=1000,
    )

    (call,) = (await one_model(provider, MemoryJournal()).ask(REQUEST, CALL)).calls

    # 500 at 1 USD a million, 1500 read at a tenth of it, 1000 written at 1.25 of it, 100 out at 5 USD
    assert call.cost_usd == Decimal("0.0024")


async def test_a_price_set_by_hand_goes_before_the_table() -> None:
    provider = OneAnswer('{"label": "account", "confidence": 1}', input_tokens=1000, output_tokens=10)
    gateway = one_model(provider, MemoryJournal(), "own", "tiny")
    assert (await gateway.ask(REQUEST, CALL)).calls[0].cost_usd == Decimal("0.00204")
