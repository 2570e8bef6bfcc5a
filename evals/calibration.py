"""`python -m evals.calibration DATA OUT.svg`: whether triage's confidence means what it says, drawn.

DATA is a folder with `triage_*/train.jsonl`; predictions are those of the cross-validation that sets the threshold.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from evals.triage import examples_of
from llm.training import Validation, train
from ops.classifiers import features_at_hand

_BINS = 10
_LEAST = 10  # texts in a bin that is drawn


def main() -> None:
    """Train, draw, and print which labels are taken for which."""
    options = argparse.ArgumentParser(prog="python -m evals.calibration", description=__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    learned, validation = train(examples_of(given.data), features_at_hand())
    draw(validation, learned.sure_at, given.out)
    for source in dict.fromkeys(validation.sources):
        print(f"{source}\n{confusion(validation, source)}\n")


def draw(validation: Validation, sure_at: float, out: Path) -> None:
    """Confidence against the share that is right, a line a source of examples, and where the threshold is."""
    mpl.rcParams["svg.hashsalt"] = "switchyard"  # the same figure is the same file
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1, linestyle=":", label="what it says")
    for source in dict.fromkeys(validation.sources):
        axes.plot(*_points(validation, source), marker="o", markersize=4, label=source)
    axes.axvline(sure_at, color="#1b232c", linewidth=1, linestyle="--", label=f"decided from {sure_at:.2f} on")
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, metadata={"Date": None})


def confusion(validation: Validation, source: str) -> str:
    """A row a true label, a column what it was taken for; labels that do not occur are left out."""
    own = np.array(validation.sources) == source
    truth, told = validation.right[own], validation.probabilities[own].argmax(axis=1)
    there = sorted({*truth.tolist(), *told.tolist()})
    head = " " * 18 + " ".join(f"{validation.labels[column][:8]:>8}" for column in there)
    rows = [
        f"{validation.labels[row]:18}" + " ".join(f"{int(((truth == row) & (told == c)).sum()):8}" for c in there)
        for row in there
    ]
    return "\n".join([head, *rows])


def _points(validation: Validation, source: str) -> tuple[list[float], list[float]]:
    own = np.array(validation.sources) == source
    confidence = validation.probabilities[own].max(axis=1)
    hits = validation.probabilities[own].argmax(axis=1) == validation.right[own]
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    drawn = [place for place in range(_BINS) if (bins == place).sum() >= _LEAST]
    return [float(confidence[bins == b].mean()) for b in drawn], [float(hits[bins == b].mean()) for b in drawn]


if __name__ == "__main__":
    main()
