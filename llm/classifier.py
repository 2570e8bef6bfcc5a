"""The local classifier: which label a text has, and how likely that is, from examples alone and without a paid call.

Two opinions are mixed: kernel ridge regression over all examples, and the vote of the nearest ones. The first is the
better one where a text is unlike every example, the second where it is much like some.
"""

import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from contracts.errors import Misconfigured
from llm.features import Features, Floats

GAMMA = 1.0  # of the kernel exp(-gamma * squared distance)
_NEAREST = 10
_VOTE_SCALE = 0.05  # cosine by which a vote falls to 1/e
_SCORE_SCALE = 0.15  # of a regression's score in the exponent
_VOTES = 0.5  # their weight beside the regression's one
_FORMAT = "switchyard-classifier-1"


@dataclass(frozen=True, eq=False)
class Classifier:
    """Labels and what was learned about them. `sure_at`: the confidence from which on the target precision holds."""

    labels: tuple[str, ...]
    features: str  # the name of those it was trained on
    rows: NDArray[np.float16]  # examples x dimensions
    row_labels: NDArray[np.int16]
    weights: Floats  # of the regression, examples x labels
    temperature: float
    sure_at: float

    def probabilities(self, rows: Floats) -> Floats:
        """Rows of features to rows of probabilities, a column a label."""
        return calibrated(self.raw(rows), self.temperature)

    def raw(self, rows: Floats) -> Floats:
        """What the two opinions say together, before calibration."""
        return mixed(rows @ self._examples, self.row_labels, self.weights)

    @functools.cached_property
    def _examples(self) -> Floats:
        """Examples as columns, once for all texts: the artefact holds them in half the room."""
        return self.rows.astype(np.float32).T

    def saved(self) -> bytes:
        """The artefact: arrays and what they mean, no code."""
        arrays: dict[str, NDArray[Any]] = {"rows": self.rows, "row_labels": self.row_labels, "weights": self.weights}
        facts = {
            "format": _FORMAT,
            "labels": self.labels,
            "features": self.features,
            "temperature": self.temperature,
            "sure_at": self.sure_at,
        }
        # One entry: several would stand in another order each time, and the digest tell another version.
        return save(arrays, metadata={"switchyard": json.dumps(facts)})

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change with anything learned: part of the agent's version."""
        return hashlib.sha256(self.saved()).hexdigest()[:16]


def read_classifier(path: Path) -> Classifier:
    """The classifier of an artefact. Raises Misconfigured: there is none, or it is broken or of another format."""
    try:
        content = path.read_bytes()
        facts = _facts(content)
        arrays = load(content)
        if facts["format"] != _FORMAT:
            raise Misconfigured(f"{path} is of the format {facts['format']}: train it again")
        return Classifier(
            labels=tuple(facts["labels"]),
            features=facts["features"],
            rows=arrays["rows"],
            row_labels=arrays["row_labels"],
            weights=arrays["weights"],
            temperature=facts["temperature"],
            sure_at=facts["sure_at"],
        )
    except (OSError, ValueError, KeyError, SafetensorError, struct.error) as error:
        raise Misconfigured(f"the classifier {path} cannot be read ({error}): train it again") from error


def checked(classifier: Classifier, features: Features) -> Classifier:
    """The classifier, if it was trained on these features. Raises Misconfigured: on others."""
    if classifier.features != features.name:
        raise Misconfigured(
            f"the classifier was trained on the features {classifier.features}, here are {features.name}: "
            "train it again, or install what it was trained with"
        )
    return classifier


def kernel(likeness: Floats) -> Floats:
    """The kernel's value for dot products of rows of length one."""
    value: Floats = np.exp(np.float32(2 * GAMMA) * (likeness - 1))
    return value


def mixed(likeness: Floats, row_labels: NDArray[np.int16], weights: Floats) -> Floats:
    """Both opinions on texts, given their dot products with every example."""
    scores = kernel(likeness) @ weights
    scores = np.exp((scores - scores.max(axis=1, keepdims=True)) / np.float32(_SCORE_SCALE))
    both = scores / scores.sum(axis=1, keepdims=True) + np.float32(_VOTES) * _votes(
        likeness, row_labels, weights.shape[1]
    )
    opinion: Floats = both / both.sum(axis=1, keepdims=True)
    return opinion


def calibrated(raw: Floats, temperature: float) -> Floats:
    """Probabilities sharpened (below 1) or flattened (above 1)."""
    powered = np.maximum(raw, np.float32(1e-9)) ** np.float32(1 / temperature)
    sharpened: Floats = powered / powered.sum(axis=1, keepdims=True)
    return sharpened


def _votes(likeness: Floats, row_labels: NDArray[np.int16], labels: int) -> Floats:
    count = min(_NEAREST, likeness.shape[1])
    nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(likeness, nearest, axis=1)
    strength = np.exp((near - near.max(axis=1, keepdims=True)) / np.float32(_VOTE_SCALE))
    votes = np.zeros((len(likeness), labels), dtype=np.float32)
    np.add.at(votes, (np.arange(len(likeness))[:, None], row_labels[nearest]), strength)
    shares: Floats = votes / votes.sum(axis=1, keepdims=True)
    return shares


def _facts(content: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file: its loader does not hand them out for bytes."""
    (size,) = struct.unpack("<Q", content[:8])
    facts: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["switchyard"])
    return facts
