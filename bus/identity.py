"""Which topic bears a name: one that was deleted and made anew has another id, and offsets of its own.

Kafka knows a topic by an id, aiokafka by its name alone. It reads on in the new topic where it was in the old one, and
what lies below is never read; only where the new one is shorter does the broker object. So the id is asked for here.
"""

import asyncio
import contextlib

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from bus.connection import BROKEN

_ASK_EVERY_S = 1.0
_NO_ID = (0, 0)

Id = tuple[int, int]
"""The two halves of a topic's id."""


class Identity:
    """Tells when the topic of a name is another one than its offsets are of. Outlives a worker's clients."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._read: Id | None = None  # the offsets are its
        self._found: Id | None = None
        self._gone: set[Id] = set()  # a broker that lags behind may still tell of it

    async def keep_asking(self, consumer: AIOKafkaConsumer) -> None:
        """Ask a started consumer's brokers again and again, until cancelled; some, as those before 2.8, do not tell."""
        while True:
            with contextlib.suppress(*BROKEN):
                self.found(await id_of(consumer, self._topic))
            await asyncio.sleep(_ASK_EVERY_S)

    def found(self, topic_id: Id) -> None:
        """Hear which topic bears the name now; the first one is the one that is read."""
        if topic_id == _NO_ID or topic_id in self._gone:
            return
        self._found = topic_id
        self._read = self._read or topic_id

    def is_another(self) -> bool:
        """Whether the topic was made anew since its offsets were dealt with."""
        return self._found != self._read

    def accept(self) -> None:
        """Note that the offsets are those of the topic that was found last."""
        if self._read is not None:
            self._gone.add(self._read)
        self._read = self._found


async def id_of(consumer: AIOKafkaConsumer, topic: str) -> Id:
    """The id of the topic that bears a name now. Raises KafkaError or OSError."""
    client = consumer._client
    response = await client.send(client.get_random_node(), _TopicIdRequest(topic))
    [(_, _, first_half, second_half, *_)] = response.topics
    return first_half, second_half


class _MetadataResponse_v10(Response):  # type: ignore[misc]  # noqa: N801 — as aiokafka names them
    API_KEY = MetadataRequest.API_KEY
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("id_first_half", Int64),
                ("id_second_half", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequest_v10(RequestStruct):  # type: ignore[misc]  # noqa: N801
    FLEXIBLE_VERSION = True
    API_KEY = MetadataRequest.API_KEY
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse_v10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("id_first_half", Int64),
                ("id_second_half", Int64),
                ("name", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicIdRequest(Request[_MetadataRequest_v10]):  # type: ignore[misc]
    API_KEY = MetadataRequest.API_KEY

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequest_v10]) -> _MetadataRequest_v10:
        return request_struct_class([(*_NO_ID, self._topic, {})], False, False, False, {})
