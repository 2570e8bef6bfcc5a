"""What every ChatModel promises: the gateway over either provider's API, and the scripted twin."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import pytest

from contracts.errors import ModelAnswerUnusable, ModelOverloaded, ModelRefused, ModelUnavailable
from contracts.ports import ChatModel
from contracts.values import Label, Tier
from llm.scripted import ScriptedAnswer, ScriptedModel
from llm.standin.faults import Kind, Rule
from tests.unit.llm.kit import CALL, REQUEST, StandIn, Verdict, open_gateway, small_wit, standin_server

BAD_ANSWERS = [Kind.MALFORMED, Kind.EMPTY, Kind.OUT_OF_SET, Kind.HUGE]
IN_A_SCRIPT: dict[Kind, ScriptedAnswer] = {
    Kind.MALFORMED: '{"label": "compl',
    Kind.EMPTY: "",
    Kind.OUT_OF_SET: {"label": "none_of_these", "confidence": 1},
    Kind.HUGE: '{"padding": "' + "x" * 1_000_000 + '"}',
    Kind.OVERLOADED: ModelOverloaded("scripted", retry_after_s=4),
    Kind.SERVER_ERROR: ModelUnavailable("scripted"),
    Kind.REFUSED: ModelRefused("scripted"),
}


@pytest.fixture(scope="module")
def put_up_standin() -> Iterator[Callable[[], StandIn]]:
    with standin_server() as put_up:
        yield put_up


@pytest.fixture(params=["anthropic", "openai", "scripted"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_model(backend: str, put_up_standin: Callable[[], StandIn]) -> Callable[..., AsyncIterator[ChatModel]]:
    """Opens a model that first does wrong what it is told to, each once, and answers well from then on."""

    @asynccontextmanager
    async def opened(*wrongs: Kind) -> AsyncIterator[ChatModel]:
        if backend == "scripted":
            good = small_wit("Verdict", "", REQUEST.content)
            script = [*(IN_A_SCRIPT[kind] for kind in wrongs), good, good]
            yield ScriptedModel({"Verdict": script}, cost_usd=Decimal("0.01"))
            return
        standin = put_up_standin()
        standin.faults.replace([Rule(kind, times=1, retry_after_s=4) for kind in wrongs])
        async with open_gateway(backend, standin.base_url) as gateway:
            yield gateway

    return opened


async def test_an_answer_fills_the_schema_and_tells_its_one_call(open_model) -> None:
    async with open_model() as model:
        answer = await model.ask(replace(REQUEST, tier=Tier.STRONG), CALL)
    (call,) = answer.calls
    assert isinstance(answer.value, Verdict)
    assert answer.value.label is Label.COMPLAINT
    assert (call.step, call.tier, call.outcome) == (CALL.step, Tier.STRONG, "ok")
    assert call.cost_usd > 0
    assert min(call.input_tokens, call.output_tokens) > 0
    assert call.call_id


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_bad_answer_is_repaired_once_at_the_cost_of_both_calls(open_model, bad: Kind) -> None:
    async with open_model(bad) as model:
        answer = await model.ask(REQUEST, CALL)
    assert answer.value.label is Label.COMPLAINT
    assert [call.outcome for call in answer.calls] == ["malformed", "ok"]
    assert len({call.call_id for call in answer.calls}) == 2


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_second_bad_answer_is_unusable_and_tells_what_was_paid(open_model, bad: Kind) -> None:
    async with open_model(Kind.MALFORMED, bad) as model:
        with pytest.raises(ModelAnswerUnusable) as caught:
            await model.ask(REQUEST, CALL)
    assert [call.outcome for call in caught.value.calls] == ["malformed", "malformed"]
    assert all(call.cost_usd > 0 for call in caught.value.calls)


async def test_overload_says_when_to_come_back(open_model) -> None:
    async with open_model(Kind.OVERLOADED) as model:
        with pytest.raises(ModelOverloaded) as caught:
            await model.ask(REQUEST, CALL)
        assert (await model.ask(REQUEST, CALL)).value.label is Label.COMPLAINT
    assert caught.value.retry_after_s == 4


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.SERVER_ERROR, ModelUnavailable), (Kind.REFUSED, ModelRefused)], ids=["500", "400"]
)
async def test_a_failure_is_not_tried_again_behind_the_callers_back(open_model, kind: Kind, error: type) -> None:
    async with open_model(kind) as model:
        with pytest.raises(error):
            await model.ask(REQUEST, CALL)
        assert len((await model.ask(REQUEST, CALL)).calls) == 1


async def test_a_refused_repair_leaves_the_answer_unusable_with_its_cost(open_model) -> None:
    async with open_model(Kind.EMPTY, Kind.REFUSED) as model:
        with pytest.raises(ModelAnswerUnusable) as caught:
            await model.ask(REQUEST, CALL)
    assert len(caught.value.calls) == 1
