"""One of several worker processes of an agent: `python -m ops.child AGENT NUMBER`, started by `ops.processes`.

The parent holds its standard input: a line there asks it to drain, its end tells that the parent is gone, and then
the worker ends at once. On standard output it writes one JSON line: that it is ready, or why it ends.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading

from contracts.errors import SupportError
from ops.processes import FAILURE, READY
from ops.running import FAILED, exit_code, run, until_signalled
from ops.settings import Settings, read_settings
from ops.telemetry import log_to_stderr, trace_records
from ops.work import work


def main() -> None:
    """Be a worker until the parent, SIGINT or SIGTERM says otherwise."""
    agent, number = sys.argv[1], int(sys.argv[2])
    log_to_stderr(agent, logging.INFO, worker=number)
    trace_records()
    try:
        settings = read_settings()
        run(until_signalled(lambda stopping: _work(agent, settings, stopping)))
    except SupportError as error:
        _tell(FAILURE, str(error))
        raise SystemExit(exit_code(error)) from error


async def _work(agent: str, settings: Settings, stopping: asyncio.Event) -> None:
    # A thread, because the parent's end must be seen while something blocks the loop.
    obeying = threading.Thread(target=_obey, args=(asyncio.get_running_loop(), stopping), name="parent", daemon=True)
    obeying.start()
    await work(agent, settings, stopping, lambda: _tell(READY, agent))


def _obey(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        with contextlib.suppress(RuntimeError):  # the loop is over, the process nearly
            loop.call_soon_threadsafe(stopping.set)
    os._exit(FAILED)


def _tell(key: str, what: str) -> None:
    print(json.dumps({key: what}), flush=True)


if __name__ == "__main__":
    main()
