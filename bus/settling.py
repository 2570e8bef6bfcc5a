"""The settling writer: decided steps become stored ones, many in one write."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from bus.backoff import outlast
from bus.delivery import Delivery
from contracts.errors import Misconfigured
from contracts.ports import Settled, Settlement, TicketStore

_log = logging.getLogger(__name__)
_AT_ONCE = 500  # steps in one write: as many as gather under load with a thousand handlers in flight
_WRITERS = 2  # writes at the same time

OnSettled = Callable[[Delivery, Settlement, Settled | Exception, str], None]
"""Hears what became of a step, and under which owner's name; an Exception beyond `Settled` is a bug of the store."""


class Settling:
    """Collects steps while earlier ones are written: a step that comes alone waits for nobody.

    A write whose outcome is unknown is made again, and finds by the event ids what the first one stored.
    """

    def __init__(
        self,
        tickets: TicketStore,
        owner: Callable[[], str],
        on_settled: OnSettled,
        *,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._tickets = tickets
        self._owner = owner
        self._on_settled = on_settled
        self._failed = failed
        self._waiting: deque[tuple[Delivery, Settlement]] = deque()
        self._writing: set[asyncio.Task[None]] = set()
        self._scheduled = False

    @property
    def backlog(self) -> int:
        """Steps that wait for a write."""
        return len(self._waiting)

    def put(self, delivery: Delivery, settlement: Settlement) -> None:
        """Take a step to be stored; no other of its ticket may be on its way."""
        self._waiting.append((delivery, settlement))
        if not self._scheduled and len(self._writing) < _WRITERS:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write_some)  # what is decided right now joins

    async def cancel(self) -> None:
        """Give up; whether what is being written is stored is then unknown."""
        for task in self._writing:
            task.cancel()
        if self._writing:
            await asyncio.wait(list(self._writing))

    def _write_some(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._writing) < _WRITERS:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            task = asyncio.get_running_loop().create_task(self._write(batch))
            self._writing.add(task)
            task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        self._write_some()

    async def _write(self, batch: Sequence[tuple[Delivery, Settlement]]) -> None:
        settlements, owner = [settlement for _, settlement in batch], self._owner()
        results: Sequence[Settled | Exception]
        try:
            results = await outlast(lambda: self._tickets.settle(settlements, owner))
        except Misconfigured:
            raise  # no step is at fault, and none can be stored
        except Exception as error:  # noqa: BLE001 - a bug of the store: told to whoever answers for the step
            if len(batch) > 1:
                for one in batch:
                    await self._write([one])
                return
            _log.exception("a step cannot be stored")
            results = [error]
        for (delivery, settlement), result in zip(batch, results, strict=True):
            self._on_settled(delivery, settlement, result, owner)
