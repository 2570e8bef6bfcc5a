"""ScriptedModel: what tests of agents lean on beyond the contract."""

from decimal import Decimal

import pytest

from contracts.values import Label
from llm.scripted import ScriptedModel
from tests.unit.llm.kit import CALL, REQUEST, Verdict


async def test_a_script_may_be_values_mappings_or_json() -> None:
    said = {"label": "account", "confidence": 0.5}
    model = ScriptedModel({"Verdict": [Verdict(**said), said, '{"label": "account", "confidence": 0.5}']})
    answers = [(await model.ask(REQUEST, CALL)).value for _ in range(3)]
    assert answers == [Verdict(label=Label.ACCOUNT, confidence=0.5)] * 3


async def test_a_script_may_be_a_function_of_the_request() -> None:
    model = ScriptedModel({"Verdict": lambda request: {"label": "account", "confidence": 1, "note": request.content}})
    assert (await model.ask(REQUEST, CALL)).value.note == REQUEST.content


async def test_what_was_asked_is_remembered_and_calls_cost_what_they_are_set_to() -> None:
    model = ScriptedModel({"Verdict": [{"label": "account", "confidence": 1}]}, cost_usd=Decimal("0.25"))
    answer = await model.ask(REQUEST, CALL)
    assert (model.requests, model.contexts) == ([REQUEST], [CALL])
    assert [call.cost_usd for call in answer.calls] == [Decimal("0.25")]


async def test_a_script_that_is_missing_or_used_up_names_its_schema() -> None:
    with pytest.raises(LookupError, match="Verdict"):
        await ScriptedModel({}).ask(REQUEST, CALL)
    with pytest.raises(LookupError, match=r"Verdict.*used up"):
        await ScriptedModel({"Verdict": []}).ask(REQUEST, CALL)
