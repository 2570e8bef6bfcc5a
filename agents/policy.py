"""The policy in force: finds the sentence that states a rule."""

import re
from collections.abc import Iterable, Iterator, Sequence

from contracts.shop import Passage

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n\s*(?=[-*•]\s|\d+[.)]\s)")


def sentences(passages: Iterable[Passage]) -> Iterator[str]:
    """Every sentence of the policy, verbatim, in order."""
    for passage in passages:
        yield from filter(None, map(str.strip, _SENTENCE_END.split(passage.text)))


def stating(passages: Iterable[Passage], words: Sequence[str], hints: Sequence[str] = ()) -> str | None:
    """The first sentence that holds all words, of those the one with most hints. Words match where they start."""
    candidates = [s for s in sentences(passages) if all(_holds(s, word) for word in words)]
    return max(candidates, key=lambda s: sum(_holds(s, hint) for hint in hints), default=None)


def _holds(sentence: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}", sentence, re.IGNORECASE) is not None
