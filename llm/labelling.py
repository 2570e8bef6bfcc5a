"""Labels a message by the local classifier: the request that needs most authority first, the others listed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.values import Label, Priority
from llm.classifier import Classifier
from llm.features import Features, Floats
from llm.language import language_of

_BY_AUTHORITY = (
    Label.HUMAN_AGENT,
    Label.CANCEL_ORDER,
    Label.RETURN_REFUND,
    Label.ADDRESS_CHANGE,
    Label.CHANGE_ORDER,
    Label.PAYMENT_BILLING,
    Label.ACCOUNT,
    Label.COMPLAINT,
    Label.ORDER_STATUS,
    Label.SHIPPING_INFO,
    Label.PRODUCT_QUESTION,
)
_NOBODY = 0.0  # the confidence where the classifier has no say
_MAX_PARTS = 8
_MIN_PART_WORDS = 3
_MAX_CHARS = 2_000
_MIN_LETTERS = 0.6  # the share of letters and spaces below which a text is a log or a table
_PART_END = re.compile(r"(?<=[.!?])\s+|\n+|;\s+")
_URGENT = re.compile(r"\b(?:fraud\w*|scam\w*|hacked|stolen|danger\w*|injur\w*|on fire|lawyer|police)\b", re.IGNORECASE)
_HIGH = re.compile(
    r"\b(?:urgent\w*|asap|immediately|(?:second|third|fourth|fifth) time|still (?:no|not|waiting)|for weeks)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a message is about. `confidence`: how likely the label is right; 0 where the classifier has no say."""

    label: Label
    confidence: float  # 0..1
    others: tuple[Label, ...]
    language: str
    priority: Priority


class Labeller:
    """A classifier with the features it was trained on. Safe to share between threads."""

    def __init__(self, classifier: Classifier, features: Features) -> None:
        self._classifier = classifier
        self._features = features
        self.sure_at = classifier.sure_at
        self.version = f"classifier:{classifier.digest}"

    def label(self, texts: Sequence[str]) -> list[Labelled]:
        """A label for each text, in their order; many at a time cost less each."""
        parts = [_parts(text) for text in texts]
        rows = self._features.matrix([part for of_text in parts for part in of_text])
        shares = self._classifier.probabilities(rows)
        ends = np.cumsum([len(of_text) for of_text in parts])
        return [
            self._labelled(text, shares[end - len(of_text) : end])
            for text, of_text, end in zip(texts, parts, ends, strict=True)
        ]

    def _labelled(self, text: str, shares: Floats) -> Labelled:
        """The first row of shares is the whole text's, the others are its parts'."""
        found = [(self._label(row), float(row.max())) for row in shares]
        label, confidence = found[0]
        sure = [(part, share) for part, share in found[1:] if share >= self.sure_at and part in _BY_AUTHORITY]
        wanted = sorted({part for part, _ in sure} | ({label} & set(_BY_AUTHORITY)), key=_BY_AUTHORITY.index)
        if len(wanted) > 1:
            label = wanted[0]
            confidence = max(share for part, share in found if part is label)
        language = language_of(text)
        return Labelled(
            label=label,
            confidence=round(confidence, 4) if language == "en" and _is_prose(text) else _NOBODY,
            others=tuple(other for other in wanted if other is not label),
            language=language,
            priority=_priority(text),
        )

    def _label(self, row: Floats) -> Label:
        return Label(self._classifier.labels[int(row.argmax())])


def _parts(text: str) -> list[str]:
    """The whole text, then its sentences where it has several."""
    text = text.strip()[:_MAX_CHARS]
    parts = [part for part in _PART_END.split(text) if len(part.split()) >= _MIN_PART_WORDS]
    return [text, *parts[:_MAX_PARTS]] if len(parts) > 1 else [text]


def _is_prose(text: str) -> bool:
    return sum(char.isalpha() or char.isspace() for char in text) >= _MIN_LETTERS * len(text)


def _priority(text: str) -> Priority:
    if _URGENT.search(text):
        return Priority.URGENT
    return Priority.HIGH if _HIGH.search(text) else Priority.NORMAL
