"""Scores: what an eval returns, whatever it measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """An eval's figures (shares from 0 to 1), and what each item was worth, so that runs can be compared in pairs."""

    name: str
    figures: Mapping[str, float | int | Mapping[str, Any]]
    right: Mapping[str, float]  # by item id, 0..1
    notes: tuple[str, ...]
