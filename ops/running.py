"""Runs a command's coroutine: on uvloop where there is one, until a signal, with an exit code that says why."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from contracts.errors import EngineStuck, Misconfigured, SupportError

FAILED, MISCONFIGURED, STUCK, INTERRUPTED = 1, 2, 70, 130
"""Exit codes."""

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_GARBAGE_THRESHOLDS = (50_000, 20, 20)

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on an event loop of its own."""
    collect_garbage_seldom()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def collect_garbage_seldom() -> None:
    """Look for cycles less often than Python does by itself, and never among what is there already.

    A worker holds thousands of records that are no garbage: looking through them again and again takes a third of
    its time.
    """
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes a loop of uvloop; None where it is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _nothing() -> None:
    return None


async def until_signalled(serve: Callable[[asyncio.Event], Awaitable[T]], at_once: Callable[[], None] = _nothing) -> T:
    """Hand `serve` an event that SIGINT or SIGTERM sets. A second signal ends the process with 128 + its number.

    Before it ends so, `at_once` is called; it must not wait. On the main thread only.
    """
    stopping, loop, asked = asyncio.Event(), asyncio.get_running_loop(), False

    def asked_to_stop() -> None:
        _log.info("asked to stop; a second signal ends the process at once")
        stopping.set()

    def signalled(number: int, _frame: FrameType | None) -> None:
        # Python's own handler, not the loop's: the second signal must count while something blocks the loop.
        # And an exit, not the default action: the first process of a container is spared that.
        nonlocal asked
        if asked:
            at_once()
            os._exit(128 + number)
        asked = True
        loop.call_soon_threadsafe(asked_to_stop)

    before = {number: signal.signal(number, signalled) for number in _SIGNALS}
    try:
        return await serve(stopping)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(error: SupportError) -> int:
    """What a process ends with that this error ended."""
    match error:
        case Misconfigured():
            return MISCONFIGURED
        case EngineStuck():
            return STUCK
    return FAILED


@contextlib.contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """End the process with the code of an error of ours, which is one sentence on standard error."""
    try:
        yield
    except SupportError as error:
        _fail(str(error), exit_code(error))
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)


def _fail(sentence: str, code: int) -> None:
    print(f"switchyard: {sentence}", file=sys.stderr)
    raise SystemExit(code)
