"""How good triage is: figures over labelled texts, each with what it means."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import Misconfigured
from contracts.values import Label
from llm.classifier import Classifier
from llm.features import Features
from llm.labelling import Labeller
from llm.training import TARGET_PRECISION, Validation, read_examples

_BINS = 10


def of_validation(validation: Validation) -> dict[str, Any]:
    """The figures of a cross-validation."""
    labels = np.array(validation.labels)
    told = labels[validation.probabilities.argmax(axis=1)]
    truth = labels[validation.right]
    figures = figures_of(truth.tolist(), told.tolist(), validation.probabilities.max(axis=1))
    sources = np.array(validation.sources)
    by_source = {s: round(float((told == truth)[sources == s].mean()), 4) for s in dict.fromkeys(validation.sources)}
    return figures | {"accuracy_by_source": by_source}


def of_file(file: Path, classifier: Classifier, features: Features) -> dict[str, Any]:
    """The figures of a file of labelled texts, labelled as tickets are. Raises Misconfigured: it has none."""
    examples = read_examples(file)
    if not examples:
        raise Misconfigured(f"{file} holds no labelled text")
    found = Labeller(classifier, features).label([example.text for example in examples])
    truth = [example.label for example in examples]
    told = [one.label.value for one in found]
    return figures_of(truth, told, np.array([one.confidence for one in found])) | {
        "decided": round(sum(one.confidence >= classifier.sure_at for one in found) / len(found), 4),
        "confused": _confused(truth, told),
    }


def figures_of(truth: Sequence[str], told: Sequence[str], confidence: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Shares from 0 to 1. `ece`: the expected calibration error over ten bins of equal width.

    `coverage_at_95`: the share of texts, the surest first, among which 95 % are right.
    """
    hits = np.array([a == b for a, b in zip(truth, told, strict=True)])
    order = np.argsort(-confidence, kind="stable")
    precise = np.flatnonzero(np.cumsum(hits[order]) / np.arange(1, len(hits) + 1) >= TARGET_PRECISION)
    precision, recall = _precision_and_recall(truth, told, Label.OUT_OF_SCOPE)
    return {
        "n": len(hits),
        "accuracy": round(float(hits.mean()), 4),
        "macro_f1": round(_macro_f1(truth, told), 4),
        "oos_precision": round(precision, 4),
        "oos_recall": round(recall, 4),
        "ece": round(_calibration_error(hits, confidence), 4),
        "coverage_at_95": round((int(precise[-1]) + 1) / len(hits) if len(precise) else 0.0, 4),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people, a line a figure."""
    plain = [f"  {name:16} {value}" for name, value in report.items() if not isinstance(value, dict | list)]
    nested = [
        f"  {name}\n" + "\n".join(f"    {key}: {value}" for key, value in of.items())
        for name, of in report.items()
        if isinstance(of, dict)
    ]
    return "\n".join([*plain, *nested])


def _macro_f1(truth: Sequence[str], told: Sequence[str]) -> float:
    """The mean over the labels that there are."""
    scores = []
    for label in sorted(set(truth)):
        precision, recall = _precision_and_recall(truth, told, label)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.mean(scores))


def _precision_and_recall(truth: Sequence[str], told: Sequence[str], label: str) -> tuple[float, float]:
    """1 where there was nothing to be right about."""
    both = sum(a == b == label for a, b in zip(truth, told, strict=True))
    there, said = sum(a == label for a in truth), sum(b == label for b in told)
    return both / said if said else 1.0, both / there if there else 1.0


def _calibration_error(hits: NDArray[np.bool_], confidence: NDArray[np.floating[Any]]) -> float:
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        (bins == place).mean() * abs(hits[bins == place].mean() - confidence[bins == place].mean())
        for place in range(_BINS)
        if (bins == place).any()
    ]
    return float(sum(gaps))


def _confused(truth: Sequence[str], told: Sequence[str]) -> dict[str, int]:
    """Which labels were taken for which, the most frequent mistakes first."""
    mistakes = Counter(f"{a} taken for {b}" for a, b in zip(truth, told, strict=True) if a != b)
    return dict(mistakes.most_common(10))
