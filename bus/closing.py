"""Ending aiokafka clients for good, also when their brokers no longer answer.

`stop()` of either client may wait for ever for a broker that is gone. Given up half way it leaves tasks behind:
a sender that delivers late, a heartbeat that keeps partitions from others. So these are cancelled by name.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

_log = logging.getLogger(__name__)
_PATIENCE_S = 5.0


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer within seconds, whatever its brokers do."""
    if not await _stopped(producer):
        await _cancelled([producer._sender.sender_task])
        await _stopped(producer.client, "close")


def dead_task(consumer: AIOKafkaConsumer) -> str | None:
    """The name of one of a consumer's own tasks that has ended, if one has: it never does while all is well.

    aiokafka starts none anew, and tells nobody: what its fetching meets unexpectedly, such as a transport that uvloop
    closed, ends it for good.
    """
    for owner, name in ((consumer._fetcher, "_fetch_task"), (consumer._coordinator, "_coordination_task")):
        task = getattr(owner, name, None)
        if task is not None and task.done():
            return name
    return None


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, leaving its group, within seconds, whatever its brokers do."""
    if not await _stopped(consumer):
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        await _cancelled(
            getattr(owner, name, None)
            for owner, name in (
                (coordinator, "_coordination_task"),
                (coordinator, "_heartbeat_task"),
                (coordinator, "_commit_refresh_task"),
                (fetcher, "_fetch_task"),
            )
        )
        await _stopped(consumer._client, "close")


async def _stopped(client: Any, method: str = "stop") -> bool:
    stopping = asyncio.create_task(getattr(client, method)())  # alone: what it cancels of its own may come up in it
    try:
        await asyncio.wait({stopping}, timeout=_PATIENCE_S)
    finally:
        await _cancelled([stopping])
    failure = stopping.exception() if stopping.done() and not stopping.cancelled() else TimeoutError()
    if failure is not None:
        _log.warning("a Kafka client did not stop by itself: %s", type(failure).__name__)
    return failure is None


async def _cancelled(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks and see them end, or leave them after a while."""
    running = [task for task in tasks if task is not None and not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=_PATIENCE_S)
