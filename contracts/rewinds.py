"""Rewinds of groups, as they are kept in a book."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class NotedRewind:
    """One rewind: who asked for it and why, and each partition's offsets, from and to."""

    group: str
    topic: str
    by: str
    reason: str
    moves: Mapping[int, tuple[int, int]]
    again: bool = False  # what was handled was to be decided anew
    rounds: Mapping[str, int] = field(default_factory=dict)  # what became of those, once it was done
    begun_at: datetime | None = None  # the book's own time
    moved_at: datetime | None = None  # None: it was begun, and perhaps refused


class Begun(NamedTuple):
    """A rewind's number, and that of the first one that it goes on with: its own, unless others were interrupted."""

    number: int
    first: int


class Rewinds(Protocol):
    """The book of rewinds."""

    async def begin(self, rewind: NotedRewind) -> Begun:
        """Note a rewind that is about to be done.

        One that decides anew goes on with those of its group that were to, since the last that did, and were not done.
        """

    async def moved(self, number: int, rounds: Mapping[str, int]) -> None:
        """Note that it was done, and what became of the rounds that were to be decided anew."""

    async def latest(self, limit: int) -> Sequence[NotedRewind]:
        """Rewinds, the latest first."""
