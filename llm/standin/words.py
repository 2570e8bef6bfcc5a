"""Words: key words brought to their plain form, slips of the pen and all, for the stand-in's rules."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

_REFERENCE = re.compile(r"#?\bw[\s-]?\d{5,}|\d{6,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_MIN_FUZZY = 5  # letters; shorter words are too close to each other
_MIN_GLUED = 6


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    plain_form: Mapping[str, str]
    fuzzy: Sequence[str]  # words that a slip is recognised for
    glued: Sequence[str]  # words that are found inside another, longest first
    common: frozenset[str]  # nobody's slip


@functools.cache
def _vocabulary() -> _Vocabulary:
    plain_form, common = dict[str, str](), set[str]()
    for line in resources.files("llm.standin").joinpath("key_words.txt").read_text(encoding="utf-8").splitlines():
        form, _, words = line.partition(":")
        if form == "-":
            common.update(words.split())
        elif not line.startswith("#"):
            plain_form.update(dict.fromkeys(words.split(), form))
    return _Vocabulary(
        plain_form,
        fuzzy=[word for word in plain_form if len(word) >= _MIN_FUZZY],
        glued=sorted((word for word in plain_form if len(word) >= _MIN_GLUED), key=len, reverse=True),
        common=frozenset(common),
    )


def canonical(text: str) -> str:
    """The text with every key word, slips and all, replaced by its plain form, and order numbers by `ref`."""
    plain = _REFERENCE.sub(" ref ", text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return " ".join(word for token in _WORD.findall(plain) for word in _plain(token))


@functools.lru_cache(maxsize=20_000)
def _plain(token: str) -> Sequence[str]:
    known = _vocabulary()
    if token in known.plain_form:
        return (known.plain_form[token],)
    if len(token) < _MIN_FUZZY or token in known.common:
        return (token,)
    close = [word for word in known.fuzzy if _same_start(token, word) and _one_slip_apart(token, word)]
    if close:
        return (known.plain_form[min(close, key=len)],)
    inside = [known.plain_form[word] for word in known.glued if word in token]
    return tuple(dict.fromkeys(inside)) or (token,)


def _same_start(one: str, other: str) -> bool:
    return one[0] == other[0] or one[:2] == other[1::-1]


def _one_slip_apart(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    left, right = one[start:], other[start:]
    swapped = left[:2] == right[:2][::-1] and left[2:] == right[2:]
    return swapped or left[1:] == right or left == right[1:] or left[1:] == right[1:]
