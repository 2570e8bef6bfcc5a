"""The pace of a worker: how many records it settles in a second, lately."""

from collections import deque
from dataclasses import dataclass, field

_OVER_S = 30.0  # a model call takes seconds: over less, the pace would jump


@dataclass(slots=True)
class Pace:
    """How many a second, over the last half minute."""

    over_s: float = _OVER_S
    _counts: deque[tuple[float, int]] = field(default_factory=deque)  # when, how many by then

    def at(self, now_s: float, count: int) -> float:
        """The pace up to a moment at which so many were counted."""
        self._counts.append((now_s, count))
        while len(self._counts) > 2 and self._counts[1][0] <= now_s - self.over_s:
            self._counts.popleft()
        then_s, before = self._counts[0]
        return (count - before) / (now_s - then_s) if now_s > then_s else 0.0
