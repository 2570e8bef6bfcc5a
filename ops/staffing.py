"""The workers of the embedded stack: kept up by a supervisor in this process, drained before the services stop."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence

from contracts.ports import Controls
from ops.embedded.proc import MARKER
from ops.embedded.process import DidNotStart, tied
from ops.embedded.stack import EmbeddedStack
from ops.logs import last_words
from ops.posts import Command
from ops.service.scaling import supervisor_of
from ops.settings import Settings
from ops.supervisor import Supervisor, run_worker
from ops.wiring import database
from state.controls import PostgresControls
from state.scales import PostgresScales

_READY_WITHIN_S = 60.0
_POLL_S = 0.05


@contextlib.asynccontextmanager
async def staffed(
    stack: EmbeddedStack, settings: Settings, *, command: Command = run_worker
) -> AsyncIterator[asyncio.Task[None]]:
    """Workers of every agent, one of each until `scale` says otherwise, are there inside it; hands out what keeps them.

    They die with this process, as the services do: without those they could do nothing. Raises DidNotStart: one of
    them ended or told nothing of itself.
    """

    def tied_worker(agent: str, number: int, lock: int) -> Sequence[str]:
        return tied(command(agent, number, lock))

    folder, environment = stack.folder / "workers", {**os.environ, MARKER: str(stack.folder)}
    stopping = asyncio.Event()
    async with database(settings) as pool:
        controls, scales = PostgresControls(pool), PostgresScales(pool)
        with supervisor_of(folder, 1, settings, scales, command=tied_worker, environment=environment) as supervisor:
            keeping = asyncio.create_task(supervisor.run(stopping, lambda: None))
            try:
                await _until_there(supervisor, keeping, controls)
                yield keeping
            finally:
                stopping.set()
                await keeping


async def _until_there(supervisor: Supervisor, keeping: asyncio.Task[None], controls: Controls) -> None:
    """Return once a worker of each agent that is to have any told of itself."""
    began = time.monotonic()
    while missing := await _missing(supervisor, controls, began):
        if keeping.done():
            keeping.result()
        for post in supervisor.failed():
            raise DidNotStart(f"{post.agent} did not come up; {last_words(post.output)}")
        if time.monotonic() - began > _READY_WITHIN_S:
            raise DidNotStart(f"{', '.join(missing)} did not come up within {_READY_WITHIN_S:g} s")
        await asyncio.sleep(_POLL_S)


async def _missing(supervisor: Supervisor, controls: Controls, began_s: float) -> Sequence[str]:
    """The agents whose workers said nothing since a moment."""
    if not supervisor.last_wanted:
        return ["every agent"]
    wanted = [agent for agent, count in supervisor.last_wanted.items() if count]
    return [agent for agent in wanted if not await controls.workers(agent, within_s=time.monotonic() - began_s)]
