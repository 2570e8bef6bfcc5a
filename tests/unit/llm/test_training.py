"""The local classifier: what it learns, how honestly it is measured, and what becomes of a bad file."""

import json
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Misconfigured
from llm.classifier import checked, read_classifier
from llm.ngrams import Ngrams
from llm.training import MAX_EXAMPLES, Example, Validation, read_examples, seed_examples, threshold, train

CANCEL = ["cancel my order", "please cancel it", "I want to cancel the order", "how do I cancel an order"]
REFUND = ["where is my refund", "I want my money back", "refund me please", "refund the money I paid"]
EXAMPLES = [Example(text, "cancel_order", "own") for text in CANCEL] + [
    Example(text, "return_refund", "own") for text in REFUND
]


def test_what_it_was_shown_it_knows_again() -> None:
    learned, _ = train(EXAMPLES, Ngrams())
    shares = learned.probabilities(Ngrams().matrix([e.text for e in EXAMPLES]))
    assert [learned.labels[place] for place in shares.argmax(axis=1)] == [e.label for e in EXAMPLES]
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_an_artefact_says_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    learned, _ = train(EXAMPLES, Ngrams())
    (tmp_path / "own").write_bytes(learned.saved())
    again = read_classifier(tmp_path / "own")
    row = Ngrams().matrix(["cancel this please"])
    assert (again.labels, again.sure_at, again.digest) == (learned.labels, learned.sure_at, learned.digest)
    assert again.probabilities(row) == pytest.approx(learned.probabilities(row))


def test_an_example_more_is_another_version() -> None:
    learned, _ = train(EXAMPLES, Ngrams())
    more, _ = train([*EXAMPLES, Example("call it off", "cancel_order", "own")], Ngrams())
    assert more.digest != learned.digest


def test_texts_that_say_the_same_are_never_on_both_sides_of_the_validation() -> None:
    """Copies of one riddle carry a label that nothing else explains: known from a copy, it would be right."""
    copies = [Example("the grey heron sleeps standing", "complaint", "own")] * 20
    _, validation = train([*EXAMPLES, *copies], Ngrams())
    hidden = validation.probabilities[len(EXAMPLES) :]
    assert all(validation.labels[place] != "complaint" for place in hidden.argmax(axis=1))


def test_the_threshold_holds_in_the_worst_source() -> None:
    shares = np.array([[0.9, 0.1]] * 60 + [[0.7, 0.3]] * 60, dtype=np.float32)
    truth = np.array([0] * 60 + [0] * 30 + [1] * 30)
    easy = Validation(("a", "b"), shares, truth, ("one",) * 120)
    split = Validation(("a", "b"), shares, truth, (*("one",) * 60, *("two",) * 60))
    assert threshold(easy, 0.7) == 0.0
    assert threshold(easy, 0.8) == pytest.approx(0.9)
    assert threshold(split, 0.7) == 1.0


def test_of_too_many_examples_every_label_is_kept() -> None:
    many = [Example(f"cancel number {n}", "cancel_order", "own") for n in range(MAX_EXAMPLES + 1_000)]
    from llm.training import _sampled

    chosen = _sampled([*many, *EXAMPLES[-4:]])
    assert len(chosen) <= MAX_EXAMPLES
    assert sum(e.label == "return_refund" for e in chosen) >= 2


def test_the_seeds_cover_every_label_and_are_learned_in_a_moment() -> None:
    learned, validation = train(seed_examples(), Ngrams())
    assert len(learned.labels) == 12
    hits = validation.probabilities.argmax(axis=1) == validation.right
    assert hits.mean() > 0.4  # spelling alone, twelve labels: chance is .19


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        (json.dumps({"text": "hello"}), "line 2.*label"),
        (json.dumps({"text": "hello", "label": "greeting"}), "line 2.*order_status"),
        ("[]", "line 2"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"text": "cancel", "label": "cancel_order"}) + "\n" + line + "\n")
    with pytest.raises(Misconfigured, match=said):
        read_examples(file)


def test_one_label_is_nothing_to_tell_apart() -> None:
    with pytest.raises(Misconfigured, match="two labels"):
        train(EXAMPLES[:4], Ngrams())


def test_an_artefact_that_is_broken_or_for_other_features_is_refused(tmp_path: Path) -> None:
    learned, _ = train(EXAMPLES, Ngrams())
    (tmp_path / "broken").write_bytes(learned.saved()[:100])
    for name in ("broken", "missing"):
        with pytest.raises(Misconfigured, match="train it again"):
            read_classifier(tmp_path / name)

    class Others(Ngrams):
        name = "others"

    with pytest.raises(Misconfigured, match="ngrams:2048, here are others"):
        checked(learned, Others())
