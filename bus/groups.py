"""What Kafka knows of a topic and of a consumer group that reads it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, for_code

from bus.connection import BROKEN, FORBIDDEN, KafkaConnection
from bus.offset_fetch import committed_offsets
from bus.requests import GroupRightsRequest
from bus.rights import Rights, rights_in
from contracts.errors import BusUnavailable, Misconfigured

_TIMEOUT_S = 10.0
_AGAIN_AFTER_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group, and what it was dealt of the topic."""

    id: str
    client: str
    host: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group: Kafka's word for its state (Stable, Empty, Dead, …) and its members."""

    state: str
    members: Sequence[Member] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """A group that reads a topic, and the offsets that it committed there."""

    group: Group
    committed: Mapping[int, int]


class Groups:
    """Asks about groups. Every method raises BusUnavailable: Kafka cannot be reached. Misconfigured: it refuses."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    async def partitions(self, topic: str) -> Sequence[int]:
        """The topic's partitions. Raises Misconfigured: there is no such topic."""
        found = await _answered(self._admin.describe_topics)  # all: asking for one by name may create it
        for one in found:
            if one["topic"] == topic:
                return sorted(partition["partition"] for partition in one["partitions"])
        raise Misconfigured(f"Kafka has no topic {topic}; `switchyard topics apply` creates it")

    async def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """The offsets the group committed in the topic, where it did."""
        found = await _answered(lambda: committed_offsets(self._admin, group))
        return {place.partition: offset for place, offset in found.items() if place.topic == topic}

    async def describe(self, group: str, topic: str) -> Group:
        """The group's state and members."""
        told = await _answered(lambda: self._described(group))
        members = [
            Member(
                one["member_id"],
                one["client_id"],
                one["client_host"].removeprefix("/"),
                _assigned(one["member_assignment"], topic),
            )
            for one in told["members"]
        ]
        return Group(told["state"], tuple(members))

    async def readers(self, topic: str) -> Mapping[str, Reader]:
        """The groups that committed offsets in the topic or were dealt some of it; those that may be looked at."""
        found = {}
        for name, *_ in sorted(await _answered(self._admin.list_consumer_groups)):
            with contextlib.suppress(Misconfigured):
                reader = Reader(await self.describe(name, topic), await self.committed(name, topic))
                if reader.committed or any(member.partitions for member in reader.group.members):
                    found[name] = reader
        return found

    async def rights(self, group: str) -> Rights:
        """What this client may do with a group."""
        try:
            return await _answered(lambda: self._rights(group))
        except Misconfigured:
            return frozenset()

    async def _rights(self, group: str) -> Rights:
        coordinator = await self._admin.find_coordinator(group)
        response = await self._admin._client.send(coordinator, GroupRightsRequest(group))
        [(*_, told)] = response.groups
        return rights_in(told)

    async def _described(self, group: str) -> Mapping[str, Any]:
        [response] = await self._admin.describe_consumer_groups([group])
        [told] = response.to_object()["groups"]
        if told["error_code"]:
            raise for_code(told["error_code"])(group)
        return dict(told)


@contextlib.asynccontextmanager
async def groups(connection: KafkaConnection) -> AsyncIterator[Groups]:
    """A client for questions about groups. Raises BusUnavailable: Kafka cannot be reached."""
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(_TIMEOUT_S * 1000))
    try:
        await _answered(admin.start)
        yield Groups(admin)
    finally:
        with contextlib.suppress(*BROKEN):
            async with asyncio.timeout(_TIMEOUT_S):
                await admin.close()


async def _answered(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again while a coordinator is moving or not there yet."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    return await ask()
                except KafkaError as error:
                    if not error.retriable:
                        raise
                await asyncio.sleep(_AGAIN_AFTER_S)
    except FORBIDDEN as error:
        raise Misconfigured(f"Kafka lets this user not look at it: {type(error).__name__} {error}") from error
    except BROKEN as error:
        raise BusUnavailable(f"Kafka cannot be reached: {type(error).__name__}") from error


def _assigned(assignment: bytes, topic: str) -> tuple[int, ...]:
    return tuple(sorted(_partitions_in(assignment, topic)))


def _partitions_in(assignment: bytes, topic: str) -> Iterator[int]:
    """What a member was dealt of the topic; nothing while the group is dealing."""
    if not assignment:
        return
    for name, partitions in ConsumerProtocolMemberAssignment.decode(assignment).assignment:
        if name == topic:
            yield from partitions
