"""Committed offsets as the group's coordinator has them, and an error where it cannot tell.

A coordinator that is still loading the group, or has given it to another broker, answers with an error and without
offsets. aiokafka does not look at that error, only at the offsets: it takes the group for one that never committed, and
begins where `auto_offset_reset` says, which is the whole topic once more.
"""

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NoError, NotCoordinatorForGroupError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

_ANOTHER_IS = (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError)


def heed_refusals(consumer: AIOKafkaConsumer) -> None:
    """Have a started consumer that has no partitions yet ask again where the coordinator could not tell."""
    coordinator = consumer._coordinator

    async def send_and_heed(request: Any) -> Any:
        response = await send(request)
        if isinstance(request, OffsetFetchRequest):
            try:
                _heed(response)
            except _ANOTHER_IS:
                coordinator.coordinator_dead()
                raise
        return response

    send, coordinator._send_req = coordinator._send_req, send_and_heed


async def committed_offsets(admin: AIOKafkaAdminClient, group: str) -> Mapping[TopicPartition, int]:
    """What a group committed, of all topics. Raises KafkaError: its coordinator cannot tell."""
    response = await admin._send_request(OffsetFetchRequest(group, None), await admin.find_coordinator(group))
    _heed(response)
    return {
        TopicPartition(topic, partition): offset
        for topic, partitions in response.topics
        for partition, offset, *_ in partitions
        if offset >= 0
    }


def _heed(response: Any) -> None:
    refusal = for_code(response.error_code)
    if refusal is not NoError:
        raise refusal()
