"""What a cluster tells of its topics: where they lie, how long they are, and what this client may do with them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.offset import OffsetRequest

from bus.admin import admin_client
from bus.connection import BROKEN, KafkaConnection
from bus.requests import LogDirsRequest, TopicsRequest
from bus.rights import Rights, rights_in
from contracts.topics import Topic

_ANY_REPLICA, _LATEST, _EARLIEST, _ALL = -1, -1, -2, 0


HIDDEN = "this user may not see it"
"""The drift of a topic that the cluster does not tell of, be it there or not."""

Where = tuple[str, int]
"""A topic and the number of a partition."""


@dataclass(frozen=True, slots=True)
class PartitionSeen:
    """A partition as its cluster tells of it; None is what it does not tell."""

    number: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    start: int | None = None
    end: int | None = None
    size_bytes: int | None = None  # of the leader's copy

    @property
    def is_short_of_copies(self) -> bool:
        """Whether some of its replicas are not in sync."""
        return len(self.in_sync) < len(self.replicas)


@dataclass(frozen=True, slots=True)
class TopicSeen:
    """A topic as its cluster tells of it."""

    name: str
    partitions: Sequence[PartitionSeen]
    settings: Mapping[str, str] = field(default_factory=dict)  # empty: the cluster does not tell
    may: Rights = None

    @property
    def replication(self) -> int:
        """How many copies of each partition there are to be."""
        return max((len(one.replicas) for one in self.partitions), default=0)

    @property
    def records(self) -> int | None:
        """Offsets from the log's start to its end; None where a partition cannot be asked."""
        bounds = [(one.start, one.end) for one in self.partitions]
        return (
            sum(end - start for start, end in bounds if start is not None and end is not None) if _all(bounds) else None
        )

    @property
    def size_bytes(self) -> int | None:
        """Of the leaders' copies; None where the cluster does not tell."""
        sizes = [one.size_bytes for one in self.partitions]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """A cluster's brokers and its topics by name, those that this client may see."""

    brokers: Sequence[int]
    topics: Mapping[str, TopicSeen]
    may: Rights = None
    hidden: frozenset[str] = frozenset()  # of the topics named: those that this client may not see, if they are there

    def drift(self, topic: Topic) -> str:
        """What `switchyard topics apply` would do to a topic; '' when it is as the catalogue says."""
        seen = self.topics.get(topic.name)
        if seen is None:
            return HIDDEN if topic.name in self.hidden else "to be created"
        drift = []
        if len(seen.partitions) < topic.partitions:
            drift.append(f"partitions to be raised from {len(seen.partitions)} to {topic.partitions}")
        wanted = topic.config().items() if seen.settings else ()
        drift += [f"{name} to be set to {value}" for name, value in wanted if seen.settings.get(name) != value]
        return ", ".join(drift)


async def see_cluster(connection: KafkaConnection, *, of: Iterable[str] | None = None) -> ClusterSeen:
    """Look at a cluster; bounds, sizes and settings are asked of the topics named, of all else.

    Raises BusUnavailable: it cannot be reached. Misconfigured: it does not let this client look.
    """
    async with admin_client(connection) as admin:
        told = await admin._client.send(admin._client.get_random_node(), TopicsRequest())
        seen = {name: _topic(name, partitions, may) for code, name, _, partitions, may in told.topics if not code}
        named = list(seen if of is None else of)
        closer = {name: seen[name] for name in named if name in seen}
        hidden = await _hidden(admin, [name for name in named if name not in seen])
        brokers = sorted(broker[0] for broker in told.brokers)
        bounds, sizes, settings = await asyncio.gather(
            _bounds(admin, closer.values()), _sizes(admin, brokers), _settings(admin, list(closer))
        )
    topics = {name: _closer(topic, bounds, sizes, settings.get(name, {})) for name, topic in closer.items()}
    return ClusterSeen(brokers, seen | topics, rights_in(told.authorized_operations), hidden)


async def stamped_from(connection: KafkaConnection, topics: Iterable[str], at_ms: int) -> Mapping[Where, int]:
    """By topic and partition: the timestamp of the first record that is stamped so or later, where there is one.

    Raises BusUnavailable.
    """
    cluster = await see_cluster(connection, of=())
    led = _led(cluster.topics[name] for name in topics if name in cluster.topics)
    async with admin_client(connection) as admin:
        found = await asyncio.gather(*(_asked(admin, broker, of_broker, at_ms) for broker, of_broker in led.items()))
    return {where: stamp for one in found for where, (stamp, offset) in one.items() if offset >= 0}


async def _hidden(admin: AIOKafkaAdminClient, names: Sequence[str]) -> frozenset[str]:
    """Those of the topics that the cluster will not tell of, be they there or not."""
    if not names:
        return frozenset()
    told = await admin._client.send(admin._client.get_random_node(), TopicsRequest(names))
    return frozenset(name for code, name, *_ in told.topics if code == TopicAuthorizationFailedError.errno)


def _topic(name: str, partitions: Iterable[tuple[object, ...]], may: int) -> TopicSeen:
    return TopicSeen(name, sorted(map(_partition, partitions), key=lambda one: one.number), may=rights_in(may))


def _partition(told: tuple[object, ...]) -> PartitionSeen:
    _, number, leader, _, replicas, in_sync, *_ = told
    return PartitionSeen(number, None if leader == -1 else leader, tuple(replicas), tuple(in_sync))  # type: ignore[arg-type]


async def _bounds(admin: AIOKafkaAdminClient, topics: Iterable[TopicSeen]) -> tuple[Mapping[Where, int], ...]:
    """Where the logs of partitions begin and end: two questions a broker."""
    led = _led(topics)
    return await _offsets(admin, led, _EARLIEST), await _offsets(admin, led, _LATEST)


Led = Mapping[int, Mapping[str, Sequence[int]]]
"""By broker and topic: the partitions that it leads."""


def _led(topics: Iterable[TopicSeen]) -> Led:
    led: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for topic in topics:
        for partition in topic.partitions:
            if partition.leader is not None:
                led[partition.leader][topic.name].append(partition.number)
    return led


async def _offsets(admin: AIOKafkaAdminClient, led: Led, where: int) -> Mapping[Where, int]:
    found = await asyncio.gather(*(_asked(admin, broker, of_broker, where) for broker, of_broker in led.items()))
    return {where: offset for one in found for where, (_, offset) in one.items()}


async def _asked(
    admin: AIOKafkaAdminClient, broker: int, led: Mapping[str, Sequence[int]], at: int
) -> Mapping[Where, tuple[int, int]]:
    """(timestamp, offset) of the first record that is stamped `at` or later; offset -1 where there is none."""
    wanted = [(topic, [(partition, at) for partition in partitions]) for topic, partitions in led.items()]
    try:
        response = await admin._client.send(broker, OffsetRequest(_ANY_REPLICA, _ALL, wanted))
    except BROKEN:  # this broker's partitions are not told
        return {}
    return {
        (topic, number): (stamp, offset)
        for topic, partitions in response.topics
        for number, code, stamp, offset in partitions
        if not code
    }


async def _sizes(admin: AIOKafkaAdminClient, brokers: Iterable[int]) -> Mapping[tuple[int, str, int], int]:
    """By broker, topic and partition. A broker may be unable to tell, and a user may not be let."""
    sizes = {}
    for broker in brokers:
        try:
            response = await admin._client.send(broker, LogDirsRequest())
        except BROKEN:
            continue
        for _, _, topics in response.results:
            for topic, partitions in topics:
                sizes.update(
                    {(broker, topic, number): size for number, size, _, is_future in partitions if not is_future}
                )
    return sizes


async def _settings(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """By topic; those that may not be asked for, or of a broker that cannot tell, are left out."""
    if not topics:
        return {}
    try:
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in topics])
    except BROKEN:
        return {}
    return {
        name: {entry[0]: entry[1] for entry in entries} for code, _, _, name, entries in response.resources if not code
    }


def _closer(
    topic: TopicSeen,
    bounds: tuple[Mapping[Where, int], ...],
    sizes: Mapping[tuple[int, str, int], int],
    settings: Mapping[str, str],
) -> TopicSeen:
    starts, ends = bounds
    partitions = [
        replace(
            one,
            start=starts.get((topic.name, one.number)),
            end=ends.get((topic.name, one.number)),
            size_bytes=None if one.leader is None else sizes.get((one.leader, topic.name, one.number)),
        )
        for one in topic.partitions
    ]
    return replace(topic, partitions=partitions, settings=settings)


def _all(bounds: Iterable[tuple[int | None, int | None]]) -> bool:
    return all(start is not None and end is not None for start, end in bounds)
