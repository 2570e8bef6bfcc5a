"""Waiting until something is so, where nobody says when."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Let others go on until the condition holds; whoever waits sets the limit."""
    while not await condition():  # noqa: ASYNC110 - many parts have a share in it, and none says when all are done
        await asyncio.sleep(0.001)
