"""Ranking a policy's passages for a text: BM25 over words and word pairs, vectors, and the fusion of the two.

Source: docs/adr/0014-retrieval.md for every constant and what was measured.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # one a passage
Vectors = NDArray[np.float32]  # a row a passage or a sentence, each of length one

_K1, _B = 1.5, 0.75
_FUSION_K = 60
_MAX_SENTENCES = 64  # more of a long text are not looked at: each costs some milliseconds to embed
_DECIMALS = 4  # machines differ in the last digits of a dot product; what they share decides


def _one_by_one(words: str) -> frozenset[str]:
    return frozenset(words.split())


_MARKUP = re.compile(r"[*#>`|_-]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’']?\s+|\n")
_CLAUSE_END = re.compile(r"[.!?:;,()\"“”\n]+")
_WORD = re.compile(r"[^\W_]+")
_STOP_WORDS = _one_by_one(
    """a about above after again all also am an and any are as at be because been before being below between both
    but by can cannot could d did do does doing don down during each few for from further had has have having he her
    here hers him his how i if in into is it its itself just let ll m me more most my no nor not of off on once only
    or other our out over own please re s same she should so some such t than that the their them then there these
    they this those through to too under until up us ve very was we were what when where which while who whom why
    will with would you your yours"""
)
_ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""))


def sentences(text: str) -> list[str]:
    """The sentences that say something, without markup; the whole text when none does."""
    parts = [_MARKUP.sub(" ", part).strip() for part in _SENTENCE_END.split(text)]
    return [part for part in parts if len(_words(part)) > 1][:_MAX_SENTENCES] or [text]


class WordIndex:
    """BM25 over words and pairs of neighbouring words, held in memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        self._terms: dict[str, int] = {}
        counts = [Counter(self._terms.setdefault(term, len(self._terms)) for term in _terms(text)) for text in texts]
        lengths = np.array([count.total() for count in counts], dtype=np.float64)
        term = np.fromiter((t for count in counts for t in count), dtype=np.int64)
        times = np.fromiter((n for count in counts for n in count.values()), dtype=np.float64)
        passage = np.repeat(np.arange(self._size), [len(count) for count in counts])
        held_by = np.bincount(term, minlength=len(self._terms))
        rarity = np.log(1 + (self._size - held_by + 0.5) / (held_by + 0.5))
        relative = lengths / max(lengths.mean() if self._size else 1.0, 1.0)
        weights = rarity[term] * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * relative[passage]))
        by_term = np.argsort(term, kind="stable")
        self._passages, self._weights = passage[by_term], weights[by_term]
        self._ends = np.cumsum(held_by)

    def scores(self, text: str) -> Scores:
        """How much each passage has of the text's words."""
        found = np.zeros(self._size)
        for word, times in Counter(_terms(text)).items():
            if (term := self._terms.get(word)) is not None:
                held = slice(self._ends[term - 1] if term else 0, self._ends[term])
                found[self._passages[held]] += times * self._weights[held]
        return found


def by_words(index: WordIndex, asked: Sequence[str]) -> Scores:
    """Scores over all sentences; squared, so that a sentence counts where it fits best."""
    return np.sum([index.scores(sentence) ** 2 for sentence in asked], axis=0)  # type: ignore[no-any-return]


def by_vectors(passages: Vectors, asked: Vectors) -> Scores:
    """Scores over all sentences; cubed, since likenesses lie closer together than words' scores do."""
    alike = np.clip(passages @ asked.T, 0, 1).astype(np.float64)
    return (alike**3).sum(axis=1)  # type: ignore[no-any-return]


def fused(rankings: Sequence[Scores]) -> list[int]:
    """The passages' places, best first, by reciprocal ranks; what no ranking has is last, in its own order."""
    total = np.zeros(len(rankings[0]))
    for scores in rankings:
        rounded = np.round(scores, _DECIMALS)
        order = np.argsort(-rounded, kind="stable")[: np.count_nonzero(rounded)]
        total[order] += 1 / (_FUSION_K + 1 + np.arange(len(order)))
    return np.argsort(-total, kind="stable").tolist()  # type: ignore[no-any-return]


def _terms(text: str) -> Iterator[str]:
    for clause in _CLAUSE_END.split(text):
        words = _words(clause)
        yield from words
        yield from map(" ".join, pairwise(words))


def _words(text: str) -> list[str]:
    return [_stem(word) for word in _WORD.findall(text.casefold()) if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    """The word without its commonest English endings: roughly, but the same for a question and a policy."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + instead
            break
    if len(word) > 3:
        word = word.removesuffix("e")
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
