"""Several worker processes of one agent: started together, kept up, drained together, and none left behind.

Each is a fresh interpreter that runs `ops.child`. Its standard error is this process's own, so a log line goes
straight to where logs go. Its standard input ends with this process, however that ends, and the child with it.
"""

import asyncio
import json
import logging
import os
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from contracts.errors import Misconfigured, SupportError
from ops.running import MISCONFIGURED
from ops.settings import PREFIX, Settings

READY, FAILURE = "ready", "failed"
"""The key of the JSON line a child writes: it takes records; it ends, and why."""

_CLOSING_S = 20.0  # for a worker to leave Kafka and the databases once its drain is over

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """How the worker of a number is run."""

    agent: str
    command: Callable[[int], Sequence[str]]
    environment: Callable[[int], Mapping[str, str]]
    stop_within_s: float  # then a worker that was asked to drain is killed
    first_pause_s: float = 0.5  # before one that ended by itself is started again; doubles each time
    longest_pause_s: float = 30.0
    steady_s: float = 60.0  # who ran so long failed anew, not again


def program(agent: str, settings: Settings) -> Program:
    """How the workers of an agent are run: as this process is, each with a Kafka instance id of its own."""
    instance_id = settings.kafka.instance_id

    def environment(number: int) -> Mapping[str, str]:
        own = {f"{PREFIX}KAFKA__INSTANCE_ID": f"{instance_id}-{number}"} if instance_id else {}
        return {**os.environ, **own}

    return Program(
        agent=agent,
        # -P: a folder here that is called like a package of ours is not meant
        command=lambda number: [sys.executable, "-P", "-m", "ops.child", agent, str(number)],
        environment=environment,
        stop_within_s=settings.agents.drain_timeout_s + _CLOSING_S,
    )


class Workers:
    """So many workers of an agent, kept up until told to stop. Run them once."""

    def __init__(self, program: Program, count: int) -> None:
        self._stop = asyncio.Event()
        self._kept = [_Kept(program, number, self._stop) for number in range(1, count + 1)]

    async def run(self, stopping: asyncio.Event, ready: Callable[[], None]) -> None:
        """Keep them up until `stopping`, then drain them. Calls `ready` once all of them took records.

        Raises Misconfigured: one said so; the others are drained. SupportError: one had to be killed.
        """
        keeping = [asyncio.create_task(kept.keep_up()) for kept in self._kept]
        asked_to_stop = asyncio.create_task(stopping.wait())
        telling = asyncio.create_task(self._tell_when_ready(ready))
        try:
            await asyncio.wait({*keeping, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            telling.cancel()
            asked_to_stop.cancel()
            ends = await asyncio.gather(*keeping, return_exceptions=True)
        for error in ends:
            if error is not None:
                raise error

    def kill(self) -> None:
        """End every process at once."""
        for kept in self._kept:
            kept.kill()

    async def _tell_when_ready(self, ready: Callable[[], None]) -> None:
        for kept in self._kept:
            await kept.ready.wait()
        ready()


class _Kept:
    """One worker's process, and the next one when it ends by itself."""

    def __init__(self, program: Program, number: int, stop: asyncio.Event) -> None:
        self.ready = asyncio.Event()
        self._program = program
        self._number = number
        self._stop = stop
        self._process: Process | None = None
        self._sentence = ""  # why it ends, in its own words

    async def keep_up(self) -> None:
        """Run until told to stop. Raises Misconfigured: it said so. SupportError: it had to be killed."""
        failures = 0
        while True:
            began = time.monotonic()
            code = await self._run()
            if self._stop.is_set():
                return
            if code == MISCONFIGURED:
                raise Misconfigured(self._sentence)
            failures = 1 if time.monotonic() - began > self._program.steady_s else failures + 1
            await self._pause(failures, code)
            if self._stop.is_set():
                return

    async def _run(self) -> int:
        """Run it once, to its own end or until told to stop; returns its exit code."""
        self._sentence = ""
        process = self._process = await asyncio.create_subprocess_exec(
            *self._program.command(self._number),
            env=self._program.environment(self._number),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
        ended = asyncio.create_task(self._until_ended(process))
        asked_to_stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({ended, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._drain(process, ended)
            return await ended
        finally:
            self.kill()
            asked_to_stop.cancel()

    async def _until_ended(self, process: Process) -> int:
        assert process.stdout is not None
        async for line in process.stdout:
            with suppress(ValueError):  # not ours
                self._heed(json.loads(line))
        return await process.wait()

    def _heed(self, told: Mapping[str, str]) -> None:
        self._sentence = told.get(FAILURE, self._sentence)
        if READY in told:
            self.ready.set()

    async def _drain(self, process: Process, ended: asyncio.Task[int]) -> None:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        await asyncio.wait({ended}, timeout=self._program.stop_within_s)
        if not ended.done():
            self.kill()
            await ended
            raise SupportError(
                f"worker {self._number} of {self._program.agent} did not stop within "
                f"{self._program.stop_within_s:g} s and was killed"
            )

    def kill(self) -> None:
        """End the process that runs now, if one does."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _pause(self, failures: int, code: int) -> None:
        longest_s = min(self._program.first_pause_s * 2.0 ** min(failures - 1, 16), self._program.longest_pause_s)
        pause_s = longest_s * random.uniform(0.5, 1.0)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        _log.warning(
            "worker %d of %s ended by itself (%s) and is started again in %.1f s: %s",
            *(self._number, self._program.agent, how, pause_s, self._sentence or "it did not say why"),
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause_s)
