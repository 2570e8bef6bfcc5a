"""Labelling messages: several wishes, other languages, logs, and many askers at once."""

import asyncio
from threading import get_ident

import pytest
from pydantic import BaseModel

from agents.answers import TriageVerdict
from agents.quoting import quoted
from contracts.errors import ModelRefused, ModelUnavailable
from contracts.models import CallContext, ModelRequest
from contracts.values import Label, Priority, Tier
from llm.classifier_provider import ClassifierProvider
from llm.embedding import packaged_embedder
from llm.judge import accept
from llm.labelling import Labelled, Labeller
from llm.language import language_of
from llm.provider import Prompt
from llm.training import seed_examples, train
from ops.triage_report import figures_of

CALL = CallContext("t", "default", "e", "triage", "classify")


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    features = packaged_embedder()
    return Labeller(train(seed_examples(), features)[0], features)


def test_plain_requests_get_their_label(labeller: Labeller) -> None:
    found = labeller.label(
        ["Please cancel the order I made this morning", "Where is my parcel?", "What's the weather?"]
    )
    assert [one.label for one in found] == [Label.CANCEL_ORDER, Label.ORDER_STATUS, Label.OUT_OF_SCOPE]
    assert all(one.language == "en" for one in found)


def test_of_several_requests_the_one_that_changes_most_goes_first(labeller: Labeller) -> None:
    (found,) = labeller.label(
        ["Where is my order #W1234567? Anyway, please cancel my order, I do not need it any more."]
    )
    assert found.label is Label.CANCEL_ORDER
    assert Label.ORDER_STATUS in found.others
    assert found.label not in found.others


@pytest.mark.parametrize(
    "text",
    [
        "Hallo, ich möchte meine Schuhe gerne zurückgeben",
        "मेरा ऑर्डर कहाँ है",
        "10:42:17.331 [0x7f3a] ERR 500 /api/v2/checkout?id=8231&s=1 {'code': 3817, 'x': [1,2,3]} 10.0.0.7:443",
        "#### 1234-5678 // 0000 >>>> 99999 ???",
    ],
)
def test_where_the_classifier_has_no_say_it_is_not_sure(labeller: Labeller, text: str) -> None:
    (found,) = labeller.label([text])
    assert found.confidence == 0.0


@pytest.mark.parametrize("text", ["?", "a", "\n", "x" * 50_000, "hello " * 5_000, "\ud800", "👍👍👍"])
def test_odd_texts_are_labelled_too(labeller: Labeller, text: str) -> None:
    (found,) = labeller.label([text])
    assert 0 <= found.confidence <= 1


def test_danger_and_patience_at_its_end_raise_the_priority(labeller: Labeller) -> None:
    found = labeller.label(["My account was hacked", "This is the third time I write", "Where is my order"])
    assert [one.priority for one in found] == [Priority.URGENT, Priority.HIGH, Priority.NORMAL]


def test_short_texts_are_taken_for_english() -> None:
    assert language_of("status") == "en"
    assert language_of("Où est ma commande s'il vous plaît") == "fr"


async def test_the_provider_fills_the_verdict_of_triage(labeller: Labeller) -> None:
    provider = ClassifierProvider(labeller, "seeds")
    completion = await provider.complete(_prompt("cancel my order please"))
    verdict = accept(completion.text, TriageVerdict)
    assert verdict.label is Label.CANCEL_ORDER
    assert (completion.input_tokens, completion.output_tokens, completion.usage_known) == (0, 0, True)


async def test_those_who_ask_at_once_are_computed_together_and_off_the_loop() -> None:
    counting = _Counting()
    provider = ClassifierProvider(counting, "seeds")
    await asyncio.gather(*(provider.complete(_prompt(f"order {n}")) for n in range(50)))
    assert sum(counting.sizes) == 50
    assert len(counting.sizes) <= 3
    assert counting.thread != get_ident()


async def test_a_request_for_something_else_is_refused(labeller: Labeller) -> None:
    class Poem(BaseModel):
        lines: list[str]

    with pytest.raises(ModelRefused, match="only labels"):
        await ClassifierProvider(labeller, "seeds").complete(Prompt(ModelRequest(Tier.LOCAL, "", "", Poem), CALL, 1.0))


async def test_a_failure_reaches_all_who_wait_and_the_next_one_is_served() -> None:
    counting = _Counting(fails=1)
    provider = ClassifierProvider(counting, "seeds")
    failed = await asyncio.gather(*(provider.complete(_prompt("x")) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, ModelUnavailable) for error in failed)
    assert (await provider.complete(_prompt("x"))).text


def test_figures_are_those_of_the_definitions() -> None:
    """Four texts, worked out by hand: the last is wrong at .6 while the others are right at .9."""
    import numpy as np

    told = ["a", "a", "out_of_scope", "out_of_scope"]
    figures = figures_of(["a", "a", "out_of_scope", "a"], told, np.array([0.9, 0.9, 0.9, 0.6]))
    assert figures["accuracy"] == 0.75
    assert figures["oos_precision"] == 0.5
    assert figures["oos_recall"] == 1.0
    assert figures["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-4)
    assert figures["ece"] == pytest.approx(0.75 * 0.1 + 0.25 * 0.6, abs=1e-4)
    assert figures["coverage_at_95"] == 0.75


class _Counting(Labeller):
    """Counts its batches; the first of them fail where told so."""

    def __init__(self, fails: int = 0) -> None:
        self.sizes: list[int] = []
        self.thread = 0
        self._fails = fails

    def label(self, texts: list[str]) -> list[Labelled]:  # type: ignore[override]
        self.thread = get_ident()
        if self._fails:
            self._fails -= 1
            raise MemoryError
        self.sizes.append(len(texts))
        return [Labelled(Label.COMPLAINT, 0.9, (), "en", Priority.NORMAL) for _ in texts]


def _prompt(text: str) -> Prompt:
    content = quoted("ticket", text, max_chars=1_000)
    return Prompt(ModelRequest(Tier.LOCAL, "", content, TriageVerdict), CALL, 1.0)
