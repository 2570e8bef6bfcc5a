"""Ranking passages: by words, by vectors, and both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.policy_index import WordIndex, by_vectors, by_words, fused, sentences

TEXTS = [
    "Green Account: Fees\nThe green account has no monthly fee.",
    "Blue Account: Fees\nThe blue account costs five dollars a month.",
    "Green energy\nOur branches run on green power; your account of it is welcome.",
    "Cancelling\nOrders are cancelled while they are pending.",
]


def best(text: str) -> int:
    return fused([by_words(WordIndex(TEXTS), sentences(text))])[0]


def test_neighbouring_words_count_as_a_name() -> None:
    assert best("what does my green account cost") == 0
    assert best("what does my blue account cost") == 1


@pytest.mark.parametrize("text", ["I want to cancel", "cancelling!", "Can orders be CANCELED?"])
def test_endings_make_no_difference(text: str) -> None:
    assert best(text) == 3


def test_a_sentence_counts_where_it_fits_best() -> None:
    text = "Tell me about green power. Are pending orders cancelled?"
    assert set(fused([by_words(WordIndex(TEXTS), sentences(text))])[:2]) == {2, 3}


def test_sentences_are_without_markup_and_say_something() -> None:
    text = '## Opening\n\n**Say:** "My card was *declined* twice! Why?"\n- I am in Denver, Colorado.\n---\nThanks.'
    assert sentences(text) == ['Say:  "My card was  declined  twice!', "I am in Denver, Colorado."]
    assert sentences("Refund?") == ["Refund?"]
    assert sentences("") == [""]


def test_what_no_ranking_has_comes_last_in_its_own_order() -> None:
    assert fused([np.array([0.0, 0.0, 2.0, 0.0])]) == [2, 0, 1, 3]
    assert fused([np.zeros(3), np.zeros(3)]) == [0, 1, 2]


def test_two_rankings_that_agree_outweigh_one_first_place() -> None:
    assert fused([np.array([9.0, 8.0, 0.0]), np.array([0.0, 8.0, 9.0])])[0] == 1


def test_differences_that_only_machines_make_change_no_order() -> None:
    alike = np.array([0.5, 0.5 + 1e-7, 0.5 - 1e-7])
    assert fused([alike]) == [0, 1, 2]


def test_vectors_rank_by_likeness() -> None:
    passages = np.eye(3, dtype=np.float32)
    asked = np.array([[0, 0.6, 0.8]], dtype=np.float32)
    assert fused([by_vectors(passages, asked)]) == [2, 1, 0]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.text(max_size=80))
def test_any_text_ranks_every_passage_once(texts: list[str], asked: str) -> None:
    order = fused([by_words(WordIndex(texts), sentences(asked))])
    assert sorted(order) == list(range(len(texts)))
