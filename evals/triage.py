"""The eval of triage: the local classifier on labelled texts it was not shown."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import Misconfigured
from evals.scores import Scores
from llm.classifier import Classifier
from llm.labelling import Labeller
from llm.training import Example, read_examples, seed_examples, train
from ops.classifiers import chosen_classifier, features_at_hand, load_classifier
from ops.settings import read_settings
from ops.triage_report import figures_of, of_validation

_MOST_OF_A_SOURCE = 600  # so that the largest does not decide alone, and a run takes half a minute
_WORST = 10


async def evaluate(data: Path, model: str | None = None) -> Scores:
    """A file: what the chosen classifier makes of it. A folder: cross-validation over its `triage_*/train.jsonl`.

    Raises Misconfigured: there is nothing to read, or the classifier cannot be used.
    """
    return await asyncio.to_thread(_evaluated, data, model)


def _evaluated(data: Path, model: str | None) -> Scores:
    return _of_folder(data) if data.is_dir() else _of_file(data, model)


def _of_file(file: Path, model: str | None) -> Scores:
    examples, features = read_examples(file), features_at_hand()
    classifier: Classifier = load_classifier(chosen_classifier(read_settings().llm, model), features)
    found = Labeller(classifier, features).label([example.text for example in examples])
    told, confidence = [one.label.value for one in found], np.array([one.confidence for one in found])
    return _scores(examples, figures_of([e.label for e in examples], told, confidence), told, confidence)


def examples_of(folder: Path) -> list[Example]:
    """The project's own examples, and an even part of each source. Raises Misconfigured: the folder has none."""
    files = sorted(folder.glob("triage_*/train.jsonl"))
    if not files:
        raise Misconfigured(f"{folder} holds no triage_*/train.jsonl")
    return [*seed_examples(), *(example for file in files for example in _thinned(file))]


def _of_folder(folder: Path) -> Scores:
    examples = examples_of(folder)
    _, validation = train(examples, features_at_hand())
    told = [validation.labels[place] for place in validation.probabilities.argmax(axis=1)]
    return _scores(examples, of_validation(validation), told, validation.probabilities.max(axis=1))


def _thinned(file: Path) -> list[Example]:
    examples = [Example(e.text, e.label, file.parent.name) for e in read_examples(file)]
    return examples[:: -(-len(examples) // _MOST_OF_A_SOURCE)]


def _scores(examples: list[Example], figures: dict[str, Any], told: list[str], confidence: Any) -> Scores:
    wrong = [place for place, example in enumerate(examples) if example.label != told[place]]
    worst = sorted(wrong, key=lambda place: -confidence[place])[:_WORST]
    return Scores(
        name="triage",
        figures=figures,
        right={f"{e.source}/{place}": float(e.label == told[place]) for place, e in enumerate(examples)},
        notes=tuple(f"{examples[p].source}/{p}: {examples[p].label} taken for {told[p]}" for p in worst),
    )
