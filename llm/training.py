"""Trains the local classifier from labelled texts, in seconds, and measures it on texts it was not shown."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.errors import Misconfigured
from contracts.values import Label
from llm.classifier import Classifier, calibrated, kernel, mixed
from llm.features import Features, Floats

TARGET_PRECISION = 0.95
MAX_EXAMPLES = 8_000  # the regression takes the square of it in memory
SEEDS = "seeds"
_RIDGE = 0.3
_FOLDS = 5
_JUDGED_FROM = 50  # a source of fewer examples says too little about precision
_TEMPERATURES = np.geomspace(0.25, 4, 41)
_RANDOM_SEED = 20261121


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its label; `source` is where it comes from: each source weighs more the rarer it is."""

    text: str
    label: str
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What was predicted for each example by a classifier trained without it and without its like."""

    labels: tuple[str, ...]
    probabilities: Floats
    right: NDArray[np.int64]  # indices of the true labels
    sources: tuple[str, ...]  # where each example comes from


def seed_examples() -> list[Example]:
    """The examples that come with the project."""
    text = resources.files("llm.seeds").joinpath("en.jsonl").read_text(encoding="utf-8")
    return _parsed(text.splitlines(), SEEDS)


def read_examples(path: Path) -> list[Example]:
    """The examples of a JSONL file. Raises Misconfigured, naming the line that is not one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error
    return _parsed(lines, str(path))


def _parsed(lines: Sequence[str], source: str) -> list[Example]:
    return [_example(line, source, number) for number, line in enumerate(lines, 1) if line.strip()]


def _example(line: str, source: str, number: int) -> Example:
    try:
        row = json.loads(line)
        return Example(str(row["text"]), Label(row["label"]).value, source)
    except (ValueError, KeyError, TypeError) as error:
        known = ", ".join(Label)
        raise Misconfigured(
            f'{source}, line {number}, is not an object with "text" and "label" (one of {known}): {error}'
        ) from error


def train(examples: Sequence[Example], features: Features) -> tuple[Classifier, Validation]:
    """Learn from the examples; of more than 8,000, an even sample of every label is taken.

    The temperature and the threshold come from cross-validation in which texts that say nearly the same stay on one
    side. Raises Misconfigured: fewer than two labels.
    """
    chosen = _sampled(examples)
    labels = tuple(sorted({example.label for example in chosen}))
    if len(labels) < 2:
        raise Misconfigured("a classifier needs examples of two labels at least")
    rows = features.matrix([example.text for example in chosen])
    truth = np.array([labels.index(example.label) for example in chosen])
    sources = tuple(example.source for example in chosen)
    weights = _weights(sources)
    likeness = rows @ rows.T
    raw = _unseen(likeness, truth, weights, len(labels), _folds(likeness, features.alike))
    temperature = _temperature(raw, truth, weights)
    validation = Validation(labels, calibrated(raw, temperature), truth, sources)
    learned = Classifier(
        labels=labels,
        features=features.name,
        rows=rows.astype(np.float16),
        row_labels=truth.astype(np.int16),
        weights=_regressed(likeness, truth, weights, len(labels)),
        temperature=temperature,
        sure_at=threshold(validation, TARGET_PRECISION),
    )
    return learned, validation


def threshold(validation: Validation, precision: float) -> float:
    """The lowest confidence from which on the predictions are right often enough, in every source of some size.

    0 where they always are, 1 where they never are.
    """
    confidence = validation.probabilities.max(axis=1)
    hits = validation.probabilities.argmax(axis=1) == validation.right
    sources = np.array(validation.sources)
    sizes = Counter(validation.sources)
    judged = [source for source, size in sizes.items() if size >= min(_JUDGED_FROM, max(sizes.values()))]
    return max(_threshold(confidence[sources == source], hits[sources == source], precision) for source in judged)


def _threshold(confidence: Floats, hits: NDArray[np.bool_], precision: float) -> float:
    order = np.argsort(-confidence)
    falling = confidence[order]
    is_last = np.append(falling[1:] < falling[:-1], True)  # of those equally sure: all are decided, or none
    precise = np.flatnonzero((np.cumsum(hits[order]) / np.arange(1, len(order) + 1) >= precision) & is_last)
    if not len(precise):
        return 1.0
    return 0.0 if precise[-1] == len(order) - 1 else float(falling[precise[-1]])


def _sampled(examples: Sequence[Example]) -> Sequence[Example]:
    if len(examples) <= MAX_EXAMPLES:
        return examples
    share = MAX_EXAMPLES / len(examples)
    order = np.random.default_rng(_RANDOM_SEED).permutation(len(examples))
    left = {label: max(2, int(count * share)) for label, count in Counter(e.label for e in examples).items()}
    chosen = []
    for place in order:
        example = examples[place]
        if left[example.label] > 0:
            left[example.label] -= 1
            chosen.append(example)
    return chosen


def _weights(sources: Iterable[str]) -> Floats:
    listed = list(sources)
    counts = Counter(listed)
    weights: Floats = np.array([counts[source] ** -0.5 for source in listed], dtype=np.float32)
    weights /= weights.mean()
    return weights


def _regressed(likeness: Floats, truth: NDArray[np.int64], weights: Floats, labels: int) -> Floats:
    """Kernel ridge regression of one column a label; an example of little weight may be missed by more."""
    gram = kernel(likeness)
    gram[np.diag_indices_from(gram)] += np.float32(_RIDGE) / weights
    solved: Floats = np.linalg.solve(gram, np.eye(labels, dtype=np.float32)[truth])
    return solved


def _unseen(
    likeness: Floats, truth: NDArray[np.int64], weights: Floats, labels: int, folds: NDArray[np.int64]
) -> Floats:
    raw = np.zeros((len(truth), labels), dtype=np.float32)
    for fold in range(_FOLDS):
        shown, hidden = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        learned = _regressed(likeness[np.ix_(shown, shown)], truth[shown], weights[shown], labels)
        raw[hidden] = mixed(likeness[np.ix_(hidden, shown)], truth[shown].astype(np.int16), learned)
    return raw


def _folds(likeness: Floats, alike: float) -> NDArray[np.int64]:
    """A fold for each text; texts that are alike, directly or by others between them, have the same."""
    group = np.full(len(likeness), -1)
    for first in range(len(likeness)):
        if group[first] >= 0:
            continue
        group[first], reached = first, [first]
        while reached:
            found = np.flatnonzero((likeness[reached.pop()] > alike) & (group < 0))
            group[found] = first
            reached.extend(found.tolist())
    _, numbers = np.unique(group, return_inverse=True)
    dealt = np.random.default_rng(_RANDOM_SEED).permutation(int(numbers.max()) + 1) % _FOLDS
    return dealt[numbers]


def _temperature(raw: Floats, truth: NDArray[np.int64], weights: Floats) -> float:
    """The one under which the true labels are likeliest."""
    own = np.arange(len(truth)), truth

    def surprise(temperature: float) -> float:
        return float(-(weights * np.log(calibrated(raw, temperature)[own] + 1e-9)).sum())

    return float(min(_TEMPERATURES, key=surprise))
