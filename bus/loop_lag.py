"""Sees a handler that blocks the event loop, names it, and measures how late the loop is."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType

from opentelemetry import metrics

_log = logging.getLogger(__name__)
_FRAMES = 4  # of a blocking call are told, innermost first


class LoopLag:
    """Measures an event loop's lag as the metric `switchyard.loop.lag`, and warns once of each blockage.

    Lag is how late a timer runs that is due every `every_s`. While the loop is blocked for longer than
    `warn_after_s`, a thread of our own looks at what the loop's thread is doing: code places, never values.
    """

    def __init__(
        self,
        name: str,
        *,
        every_s: float = 0.1,
        warn_after_s: float = 0.25,
        meter: metrics.Meter | None = None,
    ) -> None:
        """`name` is the agent's."""
        self._name = name
        self._every_s = every_s
        self._warn_after_s = warn_after_s
        self._histogram = (meter or metrics.get_meter("switchyard.bus")).create_histogram(
            "switchyard.loop.lag", unit="s", description="How late the event loop runs its timers"
        )
        self._attributes = {"agent": name}
        self._due_s = 0.0  # when the next timer is to run, by the monotonic clock
        self._told_of_s = 0.0  # the due time whose lateness was warned of
        self._lock = threading.Lock()  # the loop and the thread may both find that something is late
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    async def run(self) -> None:
        """Measure the running loop until cancelled. Once."""
        loop = asyncio.get_running_loop()
        self._running = True
        self._set_timer(loop)
        watch = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="loop-lag", daemon=True)
        watch.start()
        try:
            await loop.create_future()  # for ever
        finally:
            self._running = False
            if self._timer is not None:
                self._timer.cancel()

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = time.monotonic() + self._every_s
        self._timer = loop.call_later(self._every_s, self._tick, loop)  # a task that sleeps would cost twice as much

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._note(max(0.0, time.monotonic() - self._due_s))
        self._set_timer(loop)

    def _note(self, lag_s: float) -> None:
        self._histogram.record(lag_s, self._attributes)
        if lag_s > self._warn_after_s:
            self._warn(self._due_s, "a place nobody saw")
            _log.info("the event loop of %s is free again after %.2f s", self._name, lag_s)

    def _watch(self, loop_thread: int) -> None:
        """Sleep until the next timer would be too late: only then there is something to see."""
        while self._running:
            due_s = self._due_s
            wait_s = due_s + self._warn_after_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            else:
                self._warn(due_s, " < ".join(_places(sys._current_frames().get(loop_thread))))
                time.sleep(self._every_s)

    def _warn(self, due_s: float, where: str) -> None:
        with self._lock:
            # The loop may have moved on since the thread looked: then that was no blockage, or is told already.
            if due_s == self._told_of_s or due_s != self._due_s:
                return
            self._told_of_s = due_s
        _log.warning(
            "the event loop of %s is blocked for more than %.2f s in %s", self._name, self._warn_after_s, where
        )


def _places(frame: FrameType | None) -> Iterator[str]:
    """Where a thread is, innermost first: `agents/lookup.py:40 handle`."""
    for _ in range(_FRAMES):
        if frame is None:
            return
        code = frame.f_code
        yield f"{'/'.join(PurePath(code.co_filename).parts[-2:])}:{frame.f_lineno} {code.co_qualname}"
        frame = frame.f_back
