"""The gate: whether a run is worse than the stored baseline, and whether that can be more than chance.

A score falls where the mean over the items of both runs is more than two points lower. It is backed by a randomisation
test over the pairs: had nothing changed, each pair of values could as well stand the other way round. Where items are
right or wrong, that is McNemar's test. Groups of items (what stands before an id's last slash) are tested each for
itself: a small group that is lost hardly moves the whole. The whole has half the level, the groups share the rest.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from evals.scores import Scores

MARGIN = 0.02
LEVEL = 0.05
_SHUFFLES = 5_000
_MIN_GROUP = 10  # items; fewer prove nothing, and would take from the level of the others
_MIN_SHARED = 0.9  # of the baseline's items that a run must hold, to be compared with it


class Verdict(StrEnum):
    """What a comparison comes to."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reasons, worst first."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()

    def as_document(self) -> dict[str, Any]:
        """The judgement as JSON values."""
        return {"verdict": self.verdict.value, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Bounds:
    """Figures that no baseline excuses: the least or the most that each may be."""

    at_least: Mapping[str, float]
    at_most: Mapping[str, float]

    def broken_by(self, scores: Scores) -> Iterator[str]:
        """A sentence for each figure out of bounds. Raises KeyError: the eval gave no such figure."""
        for name, bound in self.at_least.items():
            if _number(scores, name) < bound:
                yield f"{name} is {scores.figures[name]} and must be at least {bound:g}"
        for name, bound in self.at_most.items():
            if _number(scores, name) > bound:
                yield f"{name} is {scores.figures[name]} and must be at most {bound:g}"


def verdict_on(scores: Scores, bounds: Bounds, baseline: Scores | None) -> Judgement:
    """Hold a run against its bounds and, where one is given, against the baseline."""
    broken = tuple(bounds.broken_by(scores))
    compared = compare(scores, baseline) if baseline else Judgement(Verdict.PASS)
    return Judgement(Verdict.FAIL, (*broken, *compared.reasons)) if broken else compared


def compare(scores: Scores, baseline: Scores) -> Judgement:
    """Compare the items that both runs hold, all of them and group by group."""
    shared = [item for item in baseline.right if item in scores.right]
    if len(shared) < _MIN_SHARED * len(baseline.right) or not shared:
        missing = len(baseline.right) - len(shared)
        return Judgement(
            Verdict.INCONCLUSIVE, (f"{missing} of {len(baseline.right)} baseline items are not in this run",)
        )
    groups = _groups(shared)
    judged = [_compared("all", shared, scores, baseline, LEVEL / 2)]
    judged += [_compared(name, items, scores, baseline, LEVEL / 2 / len(groups)) for name, items in groups.items()]
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if reasons := tuple(reason for found, reason in judged if found is verdict):
            return Judgement(verdict, reasons)
    return Judgement(Verdict.PASS)


def _groups(items: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for item in items:
        group, slash, _ = item.rpartition("/")
        if slash:
            groups.setdefault(group, []).append(item)
    return {group: members for group, members in groups.items() if len(members) >= _MIN_GROUP}


def _compared(name: str, items: Sequence[str], scores: Scores, baseline: Scores, level: float) -> tuple[Verdict, str]:
    losses = [baseline.right[item] - scores.right[item] for item in items]
    drop = sum(losses) / len(losses)
    if drop <= MARGIN:
        return Verdict.PASS, ""
    chance = chance_of(losses)
    told = f"{name}: {100 * drop:.1f} points lower over {len(items)} items, p = {chance:.4f}"
    return (Verdict.FAIL if chance < level else Verdict.INCONCLUSIVE), told


def chance_of(losses: Sequence[float]) -> float:
    """How often the sum is as large when each loss takes a random sign: one-sided, the same at every call."""
    changed = [loss for loss in losses if loss]
    total, dice = sum(changed) - 1e-9, random.Random(0)
    as_large = 0
    for _ in range(_SHUFFLES):
        signs = dice.getrandbits(len(changed)) if changed else 0
        as_large += sum(loss if signs >> place & 1 else -loss for place, loss in enumerate(changed)) >= total
    return (as_large + 1) / (_SHUFFLES + 1)


def _number(scores: Scores, name: str) -> float:
    figure = scores.figures[name]
    assert isinstance(figure, int | float), f"{name} is no number"
    return figure
