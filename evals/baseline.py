"""Baselines: the scores that later runs are held against, as JSON files of figures and item ids."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from contracts.errors import Misconfigured
from evals.scores import Scores

_SCORES = TypeAdapter(Scores)


def read_baseline(file: Path, name: str) -> Scores:
    """The scores stored in a file. Raises Misconfigured: it is missing, no baseline, or of another eval."""
    try:
        baseline = _SCORES.validate_json(file.read_bytes())
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}; write one with --write-baseline") from error
    except ValidationError as error:
        raise Misconfigured(f"{file} is no baseline: {error.errors()[0]['msg']}") from error
    if baseline.name != name:
        raise Misconfigured(f"{file} is a baseline of {baseline.name!r}, not of {name!r}")
    return baseline


def write_baseline(file: Path, scores: Scores) -> None:
    """Store scores as the baseline from now on: one line an item, so that a change of it can be read."""
    ordered = Scores(scores.name, scores.figures, dict(sorted(scores.right.items())), scores.notes)
    file.write_bytes(to_json(ordered, indent=1) + b"\n")
