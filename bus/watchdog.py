"""Notices a consumer that has gone quiet. No I/O."""

from collections.abc import Mapping


class Watchdog:
    """Told again and again when each partition's fetches were last answered, and what time it is.

    aiokafka says nothing when its fetching died; a partition nobody answers for is how it shows.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: dict[int, tuple[int | None, float]] = {}  # the last answer, and since when it stands

    def stalled(self, answers: Mapping[int, int | None], now_s: float) -> list[int]:
        """The partitions whose last answer has not changed for too long. Those not named start anew."""
        self._seen = {
            partition: (answer, self._since(partition, answer, now_s)) for partition, answer in answers.items()
        }
        return [partition for partition, (_, since_s) in self._seen.items() if now_s - since_s > self._limit_s]

    def _since(self, partition: int, answer: int | None, now_s: float) -> float:
        known = self._seen.get(partition)
        return known[1] if known is not None and known[0] == answer else now_s
