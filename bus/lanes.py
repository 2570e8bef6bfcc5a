"""Lanes: each ticket's deliveries in order, many tickets at once. No I/O."""

from collections import Counter, deque
from collections.abc import Collection

from bus.delivery import Delivery, Lane


class Lanes:
    """Deliveries that wait or run: first in, first out within a lane, one running in each, round robin over lanes."""

    def __init__(self) -> None:
        self._waiting: dict[Lane, deque[Delivery]] = {}
        self._runnable: deque[Lane] = deque()  # lanes that wait and do not run
        self._running: dict[Lane, Delivery] = {}
        self._records: Counter[int] = Counter()
        self._size_bytes: Counter[int] = Counter()

    @property
    def runnable(self) -> int:
        """How many lanes could run now."""
        return len(self._runnable)

    def offer(self, delivery: Delivery) -> None:
        """Queue a delivery at the end of its lane."""
        lane = delivery.lane
        if lane in self._waiting:
            self._waiting[lane].append(delivery)
        else:
            self._waiting[lane] = deque([delivery])
            if lane not in self._running:
                self._runnable.append(lane)
        self._weigh(delivery, 1)

    def take(self) -> Delivery | None:
        """The next delivery that may run, or None; its lane is then busy until `done`."""
        if not self._runnable:
            return None
        lane = self._runnable.popleft()
        queue = self._waiting[lane]
        delivery = queue.popleft()
        if not queue:
            del self._waiting[lane]
        self._running[lane] = delivery
        return delivery

    def done(self, lane: Lane) -> None:
        """Free a lane whose delivery ended; what waits in it may run."""
        self._weigh(self._running.pop(lane), -1)
        if lane in self._waiting:
            self._runnable.append(lane)

    def records(self, partition: int) -> int:
        """How many deliveries of a partition wait or run."""
        return self._records[partition]

    def size_bytes(self, partition: int) -> int:
        """What they weigh."""
        return self._size_bytes[partition]

    def running(self, partitions: Collection[int] | None = None) -> int:
        """How many deliveries run, of these partitions or of all."""
        return sum(partitions is None or lane.partition in partitions for lane in self._running)

    def drop_partition(self, partition: int) -> None:
        """Forget what waits. What runs keeps its lane, so that the same ticket, come back, waits for it."""
        for lane in [lane for lane in self._waiting if lane.partition == partition]:
            for delivery in self._waiting.pop(lane):
                self._weigh(delivery, -1)
        self._runnable = deque(lane for lane in self._runnable if lane.partition != partition)

    def _weigh(self, delivery: Delivery, sign: int) -> None:
        partition = delivery.place.partition
        self._records[partition] += sign
        self._size_bytes[partition] += sign * delivery.record.size_bytes
