"""Committing: tells the group coordinator how far everything is settled."""

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from bus.connection import BROKEN
from bus.frontier import Due, Frontiers

_log = logging.getLogger(__name__)


class Committer:
    """Commits one topic's frontiers, one commit at a time. A commit that failed is due again, never taken for done."""

    def __init__(self, topic: str, frontiers: Frontiers, *, timeout_s: float = 5.0) -> None:
        self._topic = topic
        self._frontiers = frontiers
        self._timeout_s = timeout_s
        self._one_at_a_time = asyncio.Lock()

    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Commit what is settled, within seconds. Failures are logged: the records come again and are known."""
        async with self._one_at_a_time:  # so that no commit of an epoch is on its way when the next one begins
            dues = self._frontiers.committable()
            if dues and await self._acknowledged(consumer, dues):
                for due in dues:
                    due.assignment.committed(due.offset)

    async def run(self, consumer: AIOKafkaConsumer, interval_s: float) -> None:
        """Commit again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit(consumer)

    async def _acknowledged(self, consumer: AIOKafkaConsumer, dues: Sequence[Due]) -> bool:
        offsets = {TopicPartition(self._topic, due.partition): due.offset for due in dues}
        try:
            async with asyncio.timeout(self._timeout_s):
                await consumer.commit(offsets)
        except BROKEN as error:
            _log.info("offsets of %s were not committed: %s", self._topic, type(error).__name__)
            return False
        return True
