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
        settings = own_settings(read_settings(), number)
        run(until_signalled(lambda stopping: _work(agent, number, settings, stopping)))


async def _work(agent: str, number: int, settings: Settings, stopping: asyncio.Event) -> None:
    log = logging.getLogger("ops")
    called = worker_name(agent, number)
    await work(agent, settings, stopping, lambda: log.info("%s is ready", called), called=called)


def own_settings(settings: Settings, number: int) -> Settings:
    """The settings of the worker at a post: as a static member of Kafka it has an id of its own."""
    if settings.kafka.instance_id is None:
        return settings
    kafka = settings.kafka.model_copy(update={"instance_id": f"{settings.kafka.instance_id}-{number}"})
    return settings.model_copy(update={"kafka": kafka})


def worker_name(agent: str, number: int) -> str:
    """What the worker at a post of this machine is called."""
    return f"{socket.gethostname()}-{agent}-{number}"


if __name__ == "__main__":
    main()
