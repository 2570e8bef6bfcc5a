"""Deliveries in flight: as many at once as allowed, one in each lane."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable

from bus.delivery import Delivery
from bus.lanes import Lanes


class InFlight:
    """Runs what the lanes hold, in tasks that live as long as there is something to run.

    An error of `carry` ends the task group, and with it the worker: it should raise none.
    """

    def __init__(self, carry: Callable[[Delivery], Awaitable[None]], limit: int, tasks: asyncio.TaskGroup) -> None:
        self.lanes = Lanes()
        self._carry = carry
        self._limit = limit
        self._group = tasks
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()  # a delivery did

    def offer(self, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries in hand, in their order."""
        for delivery in deliveries:
            self.lanes.offer(delivery)
        for _ in range(min(self._limit - len(self._tasks), self.lanes.runnable)):
            task = self._group.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)  # for one that is cancelled before it began

    def drop_waiting(self, partitions: Iterable[int]) -> None:
        """Forget the deliveries of these partitions that do not run yet."""
        for partition in partitions:
            self.lanes.drop_partition(partition)

    async def drained(self, partitions: Collection[int] | None, timeout_s: float) -> bool:
        """Wait until nothing of these partitions (None: of any) runs; False when the time was too short."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.lanes.running(partitions):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def cancel(self) -> None:
        """Give up what still runs; nothing of it is settled."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _run(self) -> None:
        try:
            while (delivery := self.lanes.take()) is not None:
                try:
                    await self._carry(delivery)
                finally:
                    self.lanes.done(delivery.lane)
                    self._ended.set()
        finally:  # at once, not in a callback: an offer in between would count it as running
            self._tasks.discard(asyncio.current_task())
