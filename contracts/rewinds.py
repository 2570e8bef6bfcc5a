"""Rewinds of groups, as they are kept in a book."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NotedRewind:
    """One rewind: who asked for it and why, and each partition's offsets, from and to."""

    group: str
    topic: str
    by: str
    reason: str
    moves: Mapping[int, tuple[int, int]]
    moved_at: datetime | None = None  # None: it was begun, and perhaps refused


class Rewinds(Protocol):
    """The book of rewinds."""

    async def begin(self, rewind: NotedRewind) -> int:
        """Note a rewind that is about to be done; returns its number."""

    async def moved(self, number: int) -> None:
        """Note that it was done."""

    async def latest(self, limit: int) -> Sequence[NotedRewind]:
        """Rewinds, the latest first."""
