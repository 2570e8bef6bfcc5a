"""One worker process: an agent, its engine, until told to stop."""

import asyncio
from collections.abc import Callable

from bus.loop_lag import LoopLag
from contracts.errors import EngineStuck, Misconfigured, SupportError
from ops.settings import Settings
from ops.wiring import worker


async def work(
    agent: str, settings: Settings, stopping: asyncio.Event, ready: Callable[[], None], *, called: str = ""
) -> None:
    """Run a worker of the agent until `stopping` is set, then drain it. Calls `ready` once it takes records.

    `called`: the name it goes by; made up of host and process if left out.
    """
    async with worker(agent, settings, called=called) as engine:
        running = asyncio.create_task(engine.run())
        measuring = asyncio.create_task(LoopLag(agent).run())
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
            for task in (running, measuring, started, asked_to_stop):
                task.cancel()


async def _ended(running: asyncio.Task[None]) -> None:
    """Wait for the engine's end; what ends a process on purpose is told as what it is, not as a group of errors."""
    try:
        await running
    except ExceptionGroup as errors:
        if meant := _meant(errors):
            raise meant from errors
        raise


def _meant(errors: ExceptionGroup) -> SupportError | None:
    """A setting that turned out wrong, or an engine that gave up, wherever it is in the group."""
    for kind in (Misconfigured, EngineStuck):
        found: BaseException | None = errors.subgroup(kind)
        while isinstance(found, ExceptionGroup):
            found = found.exceptions[0]
        if isinstance(found, kind):
            return found
    return None
