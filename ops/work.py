"""One worker process: an agent, its engine, until told to stop."""

import asyncio
from collections.abc import Callable

from contracts.errors import Misconfigured
from ops.settings import Settings
from ops.wiring import worker


async def work(agent: str, settings: Settings, stopping: asyncio.Event, ready: Callable[[], None]) -> None:
    """Run a worker of the agent until `stopping` is set, then drain it. Calls `ready` once it takes records."""
    async with worker(agent, settings) as engine:
        running = asyncio.create_task(engine.run())
        started = asyncio.create_task(engine.started.wait())
        asked_to_stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({running, started, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                ready()
            await asyncio.wait({running, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            engine.stop()
            await _ended(running)
        finally:
            for task in (running, started, asked_to_stop):
                task.cancel()


async def _ended(running: asyncio.Task[None]) -> None:
    """Wait for the engine's end; a setting that turned out wrong is told as what it is, not as a group of errors."""
    try:
        await running
    except ExceptionGroup as errors:
        misconfigured = errors.subgroup(Misconfigured)
        if misconfigured is None:
            raise
        raise Misconfigured(str(misconfigured.exceptions[0])) from errors
