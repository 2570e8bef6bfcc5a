"""Hashed n-grams: the light stand-in for sentence embeddings, which needs no model and knows spelling alone."""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from llm.features import Floats

_WORD = re.compile(r"[^\W_]+")
_CHARS = (3, 4)


class Ngrams:
    """Features (see the protocol) of words, pairs of words and pieces of words, as log counts at length one."""

    name = "ngrams:2048"
    dimensions = 2048
    alike = 0.8

    def matrix(self, texts: Sequence[str]) -> Floats:
        """A row of length one for each text; all zero where a text has no letter or digit."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            counts = Counter(zlib.crc32(gram.encode("utf-8", "replace")) % self.dimensions for gram in _grams(text))
            for place, count in counts.items():
                row[place] = np.log1p(count)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(lengths > 0, lengths, 1)
        return rows


def _grams(text: str) -> Iterator[str]:
    words = ["0" if word.isdigit() else word for word in _WORD.findall(text[:2_000].casefold())]
    yield from words
    yield from map(" ".join, pairwise(words))
    for word in words:
        padded = f"<{word}>"
        for size in _CHARS:
            yield from (padded[at : at + size] for at in range(len(padded) - size + 1))
