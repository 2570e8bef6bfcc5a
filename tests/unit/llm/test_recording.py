"""Answers recorded and given again: nothing else is, and a miss says what changed."""

from dataclasses import replace

import pytest

from contracts.errors import BudgetSpent, RecordingMissing
from state.recordings import MemoryRecordings
from tests.unit.llm.kit import CALL, REQUEST, asked_for, shared
from tests.unit.llm.scripted_providers import Told, over


async def test_a_replay_gives_what_was_recorded_and_asks_nobody() -> None:
    recordings = MemoryRecordings()
    answer = await over(Told(), links=shared(recordings=recordings)).ask(REQUEST, CALL)
    nobody = Told(AssertionError("asked"))
    replayed = await over(nobody, links=shared(recordings=recordings), recordings="replay").ask(
        REQUEST, asked_for("e9")
    )
    assert (replayed.value, replayed.calls) == (answer.value, ())
    assert not nobody.prompts


async def test_a_repair_is_recorded_as_the_question_it_is() -> None:
    recordings = MemoryRecordings()
    answer = await over(
        Told("no JSON", '{"label": "account", "confidence": 1}'), links=shared(recordings=recordings)
    ).ask(REQUEST, CALL)
    replay = over(Told(), links=shared(recordings=recordings), recordings="replay")
    assert (await replay.ask(REQUEST, CALL)).value == answer.value


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"content": REQUEST.content.replace("late", "lost")}, "content from line 1 on ('ate. é 漢' was recorded"),
        ({"system": "Choose one."}, "system from line 1 on"),
        ({"max_output_tokens": 7}, "max_output_tokens ('1024' was recorded, now '7')"),
    ],
)
async def test_a_miss_names_the_nearest_request_and_where_it_differs(changed: dict[str, object], said: str) -> None:
    recordings, nobody = MemoryRecordings(), Told()
    await over(Told(), links=shared(recordings=recordings)).ask(REQUEST, CALL)
    replay = over(nobody, links=shared(recordings=recordings), recordings="replay")
    with pytest.raises(RecordingMissing) as caught:
        await replay.ask(replace(REQUEST, **changed), CALL)
    assert f"ticket {CALL.ticket_id}" in str(caught.value)
    assert said in str(caught.value)
    assert not nobody.prompts


async def test_a_miss_without_anything_like_it_says_so() -> None:
    with pytest.raises(RecordingMissing, match="no request of this step is"):
        await over(Told(), recordings="replay").ask(REQUEST, CALL)


async def test_what_was_masked_is_recorded_masked() -> None:
    recordings = MemoryRecordings()
    secret = replace(REQUEST, content="my card is 4111 1111 1111 1111")
    await over(Told(), links=shared(recordings=recordings)).ask(secret, CALL)
    nearest = await recordings.nearest(CALL)
    assert nearest is not None
    assert "4111" not in str(nearest.request)


async def test_what_a_budget_denied_an_event_is_denied_it_again_and_no_other() -> None:
    recordings, asked = MemoryRecordings(), Told(BudgetSpent("the budget of today is spent"))
    with pytest.raises(BudgetSpent):
        await over(asked, links=shared(recordings=recordings)).ask(REQUEST, CALL)
    replay = over(Told(), links=shared(recordings=recordings), recordings="replay")
    with pytest.raises(BudgetSpent, match="the budget of today is spent"):
        await replay.ask(REQUEST, CALL)
    with pytest.raises(RecordingMissing):
        await replay.ask(REQUEST, asked_for("e9"))
