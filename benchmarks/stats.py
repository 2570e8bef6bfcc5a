"""The statistics of a noisy machine: interleaved slices, medians of paired ratios, bootstrapped intervals. No I/O."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the bounds between which it lies, 95 times of 100."""

    median: float
    low: float
    high: float


def abba(arms: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """(round, arm): every arm once a round, the order turned at every other one, so that drift hits all alike."""
    for number in range(rounds):
        yield from ((number, arm) for arm in (arms if number % 2 == 0 else reversed(arms)))


def interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 1) -> Interval:
    """The median of the values with its bootstrapped bounds. Raises ValueError: there are none."""
    if not values:
        raise ValueError("no values to take a median of")
    drawn = random.Random(seed)
    medians = sorted(median(drawn.choices(values, k=len(values))) for _ in range(resamples))
    edge = (1 - LEVEL) / 2
    return Interval(median(values), medians[int(edge * resamples)], medians[int((1 - edge) * resamples) - 1])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The median of the ratios of values of the same round. Raises ValueError: the rounds do not pair up."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} slices do not pair with {len(theirs)}")
    return interval([mine / other for mine, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of the values do not pass: one of them, not a mean. Raises ValueError: none."""
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all shares are equal, 1/n when one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The rise of the values over time, by least squares; 0 for fewer than two points."""
    if len(times) < 2:
        return 0.0
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    return sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True)) / spread if spread else 0.0
