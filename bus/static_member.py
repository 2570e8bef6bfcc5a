"""Static membership: a member that comes back under its instance id gets its partitions back, without a rebalance.

Kafka gives an instance id to whoever joined under it last. aiokafka's heartbeat does not name it, so the one before
is told that it is unknown, joins again and takes the id back: two processes with one id fence each other for ever,
each with all the partitions for half of the time. A heartbeat that names it is answered FENCED_INSTANCE_ID.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.types import Int16, Int32, Schema, String

from contracts.errors import Misconfigured

_FENCED_INSTANCE_ID = 82


@contextlib.contextmanager
def under_own_name(consumer: AIOKafkaConsumer, instance_id: str | None) -> Iterator[None]:
    """Be a static member with a started consumer that has not subscribed yet; without an id, do nothing.

    Raises Misconfigured: another process joined under the same id. Inside it shows as a KafkaError of any call.
    """
    if instance_id is None:
        yield
        return
    taken = False

    async def send_named(request: Any) -> Any:
        nonlocal taken
        response = await send(
            _NamedHeartbeat(request, instance_id) if isinstance(request, HeartbeatRequest) else request
        )
        taken = taken or getattr(response, "error_code", 0) == _FENCED_INSTANCE_ID
        return response

    send, consumer._coordinator._send_req = consumer._coordinator._send_req, send_named
    try:
        yield
    except KafkaError as error:
        if not taken:
            raise
        raise Misconfigured(
            f"another process joined the group under the Kafka instance id {instance_id!r}: each needs one of its own"
        ) from error


class _HeartbeatResponse_v3(Response):  # type: ignore[misc]  # noqa: N801 — as aiokafka names them
    API_KEY = HeartbeatRequest.API_KEY
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _HeartbeatRequest_v3(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = HeartbeatRequest.API_KEY
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _NamedHeartbeat(Request[_HeartbeatRequest_v3]):  # type: ignore[misc]
    API_KEY = HeartbeatRequest.API_KEY

    def __init__(self, heartbeat: HeartbeatRequest, instance_id: str) -> None:
        self._fields = (heartbeat._group, heartbeat._generation_id, heartbeat._member_id, instance_id)

    def build(self, request_struct_class: type[_HeartbeatRequest_v3]) -> _HeartbeatRequest_v3:
        return request_struct_class(*self._fields)
