"""A worker process at a post: `python -m ops.supervised AGENT NUMBER LOCK`, started by `ops.supervisor`.

LOCK is the file descriptor of its post's lock, which it holds until it ends. It outlives its supervisor, drains on
SIGTERM, and is called the same after a restart.
"""

import asyncio
import logging
import os
import socket
import sys

from ops.running import run, told_in_a_sentence, until_signalled
from ops.settings import Settings, read_settings
from ops.telemetry import log_to_stderr, trace_records
from ops.work import work


def main() -> None:
    """Be a worker until SIGTERM."""
    agent, number, lock = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    log_to_stderr(agent, logging.INFO, worker=number)
    trace_records()
    with told_in_a_sentence():
        settings = read_settings()
        run(until_signalled(lambda stopping: _work(agent, number, settings, stopping)))


async def _work(agent: str, number: int, settings: Settings, stopping: asyncio.Event) -> None:
    log = logging.getLogger("ops")
    called = worker_name(agent, number)
    await work(agent, settings, stopping, lambda: log.info("%s is ready", called), called=called)


def worker_name(agent: str, number: int) -> str:
    """What the worker at a post of this machine is called."""
    return f"{socket.gethostname()}-{agent}-{number}"


if __name__ == "__main__":
    main()
