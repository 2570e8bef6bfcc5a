"""The policy in force: finds the sentence that states a rule, and the passages worth showing to a model."""

import re
from collections.abc import Iterable, Iterator, Sequence

from contracts.shop import Passage

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n\s*(?=[-*•]\s|\d+[.)]\s)")
_WORD = re.compile(r"[^\W\d_]{4,}")


def sentences(passages: Iterable[Passage]) -> Iterator[str]:
    """Every sentence of the policy, verbatim, in order."""
    for passage in passages:
        yield from filter(None, map(str.strip, _SENTENCE_END.split(passage.text)))


def stating(passages: Iterable[Passage], words: Sequence[str], hints: Sequence[str] = ()) -> str | None:
    """The first sentence that holds all words, of those the one with most hints. Words match where they start."""
    candidates = [s for s in sentences(passages) if all(_holds(s, word) for word in words)]
    return max(candidates, key=lambda s: sum(_holds(s, hint) for hint in hints), default=None)


def relevant(passages: Sequence[Passage], text: str, *, max_chars: int) -> Sequence[Passage]:
    """The passages that share most words with the text, in the policy's own order, as many as fit."""
    wanted = _stems(text)
    ranked = sorted(range(len(passages)), key=lambda i: -len(wanted & _stems(_whole(passages[i]))))
    chosen, left = set[int](), max_chars
    for index in ranked:
        if (size := len(_whole(passages[index]))) <= left:
            chosen.add(index)
            left -= size
    return [passage for index, passage in enumerate(passages) if index in chosen]


def _holds(sentence: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}", sentence, re.IGNORECASE) is not None


def _stems(text: str) -> set[str]:
    return {word[:6] for word in _WORD.findall(text.casefold())}


def _whole(passage: Passage) -> str:
    return f"{passage.heading}\n{passage.text}"
