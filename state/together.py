"""Calls made at the same time share one statement; a call made alone waits for nobody."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from contracts.errors import Outage

Item = TypeVar("Item")
Result = TypeVar("Result")


class Together(Generic[Item, Result]):
    """Collects what is asked for while a statement is under way, for the next one.

    No two items of one statement have equal keys. An outage is told to all who share the statement; after any other
    error each is tried alone, so that the one at fault fails alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        key: Callable[[Item], Hashable],
        limit: int,
    ) -> None:
        self._run = run
        self._key = key
        self._limit = limit
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The item's result. Whoever is cancelled here leaves the others' statement alone."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run_all())
        return await answer

    async def _run_all(self) -> None:
        while self._waiting:
            await self._settle(self._next())

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        chosen: dict[Hashable, tuple[Item, asyncio.Future[Result]]] = {}
        while self._waiting and len(chosen) < self._limit and self._key(self._waiting[0][0]) not in chosen:
            one = self._waiting.popleft()
            chosen[self._key(one[0])] = one
        return list(chosen.values())

    async def _settle(self, chosen: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        [outcome] = await asyncio.gather(self._run([item for item, _ in chosen]), return_exceptions=True)
        if isinstance(outcome, Exception) and not isinstance(outcome, Outage) and len(chosen) > 1:
            for one in chosen:
                await self._settle([one])
            return
        if isinstance(outcome, BaseException):
            for _, answer in chosen:
                if not answer.done():  # done: its caller was cancelled
                    answer.set_exception(outcome)
            return
        for (_, answer), result in zip(chosen, outcome, strict=True):
            if not answer.done():
                answer.set_result(result)
