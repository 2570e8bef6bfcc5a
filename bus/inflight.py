"""Handlers in flight: as many at once as allowed, one in each lane."""

import asyncio
import logging
from collections.abc import Callable

from bus.delivery import Delivery
from bus.handler import Handler
from bus.lanes import Lanes
from bus.outcome import DeadLetter, Outcome
from contracts.errors import Misconfigured

_log = logging.getLogger(__name__)
_WITHOUT_PAUSE = 256  # deliveries that a runner handles before it lets others run

Finish = Callable[[Delivery, Outcome], None]
"""Takes what became of a delivery; its lane stays busy until it is told otherwise."""


class InFlight:
    """Runs what the lanes hold, in tasks that live as long as there is something to run.

    A runner takes one delivery after the other: a handler that does not wait costs no task switch. Runners are
    started in doubling numbers, as long as those before them wait, so such handlers keep to a few.
    """

    def __init__(
        self,
        lanes: Lanes,
        handle: Handler,
        finish: Finish,
        *,
        limit: int,
        tasks: asyncio.TaskGroup,
        held_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._lanes = lanes
        self._handle = handle
        self._finish = finish
        self._limit = limit
        self._held_up = held_up  # whether to start nothing for now; whoever ends it calls `wake`
        self._tasks = tasks
        self._runners: set[asyncio.Task[None]] = set()
        self._growth = 0  # runners to start next; 0: none are being started

    def wake(self) -> None:
        """Start what can run. To be called whenever a lane became ready."""
        if not self._growth and self._lanes.ready and len(self._runners) < self._limit:
            self._growth = 1
            self._grow()

    def resize(self, limit: int) -> None:
        """Let so many run at once from now on; those above it end after what they have in hand."""
        self._limit = limit
        self.wake()

    async def cancel(self) -> None:
        """Give up what still runs; nothing of it is settled."""
        for runner in self._runners:
            runner.cancel()
        if self._runners:
            await asyncio.wait(list(self._runners))

    def _grow(self) -> None:
        wanted = 0 if self._held_up() else min(self._limit - len(self._runners), self._lanes.ready)
        now = min(wanted, self._growth)
        for _ in range(now):
            runner = self._tasks.create_task(self._run())
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)  # for one that is cancelled before it began
        if now < wanted:
            self._growth *= 2
            asyncio.get_running_loop().call_soon(self._grow)  # after those just started took their first step
        else:
            self._growth = 0

    async def _run(self) -> None:
        take, handle, finish, held_up = self._lanes.take, self._handle, self._finish, self._held_up
        runners, handled = self._runners, 0
        try:
            while len(runners) <= self._limit and not held_up() and (delivery := take()) is not None:
                try:
                    outcome = await handle(delivery)
                except Misconfigured:
                    raise
                except Exception as error:  # noqa: BLE001 - no record may stop its partition
                    _log.exception("a bug at %s", delivery.position)
                    outcome = DeadLetter(error)
                finish(delivery, outcome)
                handled += 1
                if not handled % _WITHOUT_PAUSE:
                    await asyncio.sleep(0)
        finally:  # at once, not in a callback: whoever wakes in between would count it as running
            self._runners.discard(asyncio.current_task())
