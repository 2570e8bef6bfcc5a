"""Features: what the local classifier sees of a text."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Features(Protocol):
    """Turns texts into rows of length one, whose dot products say how alike the texts are."""

    @property
    def name(self) -> str:
        """Which features: rows of two names are not to be compared."""

    @property
    def dimensions(self) -> int:
        """The length of a row."""

    @property
    def alike(self) -> float:
        """The dot product above which two texts say nearly the same."""

    def matrix(self, texts: Sequence[str]) -> Floats:
        """A row for each text, in their order."""
