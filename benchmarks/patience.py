"""Waiting for a condition, with a limit."""

import asyncio
from collections.abc import Callable

_LOOK_EVERY_S = 0.02


async def until(holds: Callable[[], bool], *, within_s: float) -> None:
    """Wait until something holds, by looking now and then. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - nobody would set an event: it happens in other processes
            await asyncio.sleep(_LOOK_EVERY_S)
