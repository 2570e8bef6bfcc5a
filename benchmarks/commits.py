"""Sees every commit that leaves this process, whichever library asks for it."""

from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator

from benchmarks.ledger import Ledger


def watch_commits(ledger: Ledger, topic: str) -> None:
    """Tell the ledger of each offset at the moment it is sent; for the rest of the process's life.

    It reaches into aiokafka, which all the arms commit through: so all are checked by the same rule.
    """
    send = GroupCoordinator._do_commit_offsets

    async def watched(self: Any, assignment: Any, offsets: Mapping[TopicPartition, Any]) -> None:
        for partition, offset in offsets.items():
            if partition.topic == topic:
                ledger.committing(partition.partition, offset.offset)
        await send(self, assignment, offsets)

    GroupCoordinator._do_commit_offsets = watched
