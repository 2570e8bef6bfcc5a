"""Committing: tells the group coordinator how far everything is settled."""

import asyncio
import logging
from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from bus.connection import BROKEN
from bus.frontier import Frontiers

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
            offsets = {TopicPartition(self._topic, due.partition): due.offset for due in dues}
            if dues and await self._acknowledged(consumer, offsets):
                for due in dues:
                    due.assignment.committed(due.offset)

    async def set_back(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> bool:
        """Commit the beginning of partitions, whatever was committed of them; False: it was not acknowledged."""
        async with self._one_at_a_time:
            return await self._acknowledged(consumer, dict.fromkeys(partitions, 0))

    async def run(self, consumer: AIOKafkaConsumer, interval_s: float) -> None:
        """Commit again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit(consumer)

    async def _acknowledged(self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await consumer.commit(offsets)
        except BROKEN as error:
            _log.info("offsets of %s were not committed: %s", self._topic, type(error).__name__)
            return False
        return True
