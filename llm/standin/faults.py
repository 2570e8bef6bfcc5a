"""Scripted faults: what the stand-in does wrong, how often, and to whom."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What goes wrong."""

    # Refused: not paid for.
    RATE_LIMITED = "rate_limited"  # 429 with Retry-After
    QUOTA_EXHAUSTED = "quota_exhausted"  # 429 that no waiting helps
    SERVER_ERROR = "server_error"  # 500
    OVERLOADED = "overloaded"  # 529
    REFUSED = "refused"  # the rule's `status`
    ERROR_IN_200 = "error_in_200"
    # Answered, but badly: paid for.
    SLOW = "slow"  # `seconds` before the answer
    DRIP = "drip"  # the answer's body spread over `seconds`
    CUT = "cut"  # the connection ends in the middle of the body
    MALFORMED = "malformed"
    EMPTY = "empty"
    OUT_OF_SET = "out_of_set"
    HUGE = "huge"  # 1 MB
    WRONG_CONTENT_TYPE = "wrong_content_type"


UNPAID = frozenset(
    {
        Kind.RATE_LIMITED,
        Kind.QUOTA_EXHAUSTED,
        Kind.SERVER_ERROR,
        Kind.OVERLOADED,
        Kind.REFUSED,
        Kind.ERROR_IN_200,
    }
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault: strikes a share of the requests of a model whose text holds some words ("" is any), so many times."""

    kind: Kind
    times: int | None = None  # None: for ever
    share: float = 1.0  # 0..1
    model: str = ""
    text: str = ""
    retry_after_s: float | None = None
    seconds: float = 1.0
    status: int = 400

    @classmethod
    def of(cls, said: dict[str, Any]) -> "Rule":
        """The rule as JSON says it. Raises ValueError: it names no known kind, or a field there is not."""
        unknown = said.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a rule has no field {', '.join(sorted(unknown))}")
        if "kind" not in said:
            raise ValueError("a rule needs a kind")
        return cls(**{**said, "kind": Kind(said["kind"])})

    def meets(self, model: str, text: str) -> bool:
        """Whether a request is of the kind the rule is for."""
        return self.times != 0 and self.model in ("", model) and self.text in text


class Faults:
    """The rules in force; the first that strikes is the one that counts."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.rules: list[Rule] = []

    def replace(self, rules: Sequence[Rule]) -> None:
        """Put these rules in the place of those in force."""
        self.rules = list(rules)

    def strike(self, model: str, text: str) -> Rule | None:
        """The fault that befalls this request, if any; it is used up by one."""
        for index, rule in enumerate(self.rules):
            if rule.meets(model, text) and (rule.share >= 1 or self._random.random() < rule.share):
                if rule.times is not None:
                    self.rules[index] = replace(rule, times=rule.times - 1)
                return rule
        return None


def spoiled(text: str, schema: dict[str, Any], kind: Kind) -> str:
    """The answer's text as the fault leaves it."""
    match kind:
        case Kind.MALFORMED:
            return text[: len(text) // 2]
        case Kind.EMPTY:
            return ""
        case Kind.HUGE:
            return '{"padding": "' + "x" * 1_000_000 + '"}'
        case Kind.OUT_OF_SET:
            return _out_of_set(schema)
        case _:
            return text


def _out_of_set(schema: dict[str, Any]) -> str:
    """Well-formed JSON with every field there and no value allowed: a made-up word where the set is closed."""
    names = ", ".join(f'"{name}": "none_of_these"' for name in schema.get("properties", {"label": {}}))
    return "{" + names + "}"
