"""Notices a consumer that has gone quiet. No I/O."""

from collections.abc import Mapping

from aiokafka.errors import KafkaError

from contracts.errors import EngineStuck

_CLIENTS = 3  # in a row that went quiet


class Watchdog:
    """Told again and again when each partition's fetches were last answered, and what time it is.

    aiokafka says nothing when its fetching died; a partition nobody answers for is how it shows. A new client is
    the first remedy. When that goes quiet too, and the next, the process had better start anew.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: dict[int, tuple[int | None, float]] = {}  # the last answer, and since when it stands
        self._quiet_clients = 0

    def look(self, answers: Mapping[int, int | None], now_s: float) -> None:
        """Look at the partitions that are being fetched.

        Raises KafkaError: one was not answered for too long. EngineStuck: that happened with several clients
        in a row.
        """
        if any(answer is not None and self._is_new(partition, answer) for partition, answer in answers.items()):
            self._quiet_clients = 0
        self._seen = {
            partition: (answer, self._since(partition, answer, now_s)) for partition, answer in answers.items()
        }
        stalled = [partition for partition, (_, since_s) in self._seen.items() if now_s - since_s > self._limit_s]
        if stalled:
            self._bark(stalled)

    def forget(self) -> None:
        """Start anew: a client was assigned its partitions just now."""
        self._seen = {}

    def _bark(self, stalled: list[int]) -> None:
        self._quiet_clients += 1
        self.forget()
        if self._quiet_clients >= _CLIENTS:
            raise EngineStuck(f"{_CLIENTS} Kafka clients in a row fetched nothing of partitions {sorted(stalled)}")
        raise KafkaError(f"no fetch of partitions {sorted(stalled)} was answered for too long")

    def _is_new(self, partition: int, answer: int) -> bool:
        known = self._seen.get(partition)
        return known is not None and known[0] != answer

    def _since(self, partition: int, answer: int | None, now_s: float) -> float:
        known = self._seen.get(partition)
        return known[1] if known is not None and known[0] == answer else now_s
