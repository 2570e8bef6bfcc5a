"""Topics: making the cluster as the catalogue says, and seeing that it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    InvalidPartitionsError,
    TopicAlreadyExistsError,
    for_code,
)

from bus.connection import BROKEN, FORBIDDEN, KafkaConnection
from contracts.errors import BusUnavailable, Misconfigured
from contracts.topics import Topic, all_topics

_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 5.0
_POLL_S = 0.1
_SET_ON_THE_TOPIC = 1  # Kafka's config source: DYNAMIC_TOPIC_CONFIG
_MOST_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class TopicChange:
    """What became of a topic: created, unchanged, partitions raised, settings changed."""

    topic: str
    change: str


async def apply_topics(connection: KafkaConnection, topics: Iterable[Topic] | None = None) -> list[TopicChange]:
    """Make the cluster's topics what the catalogue says. Safe to repeat; deletes nothing, lowers no partition count.

    Raises BusUnavailable: Kafka cannot be reached. Misconfigured: it refuses a topic.
    """
    wanted = list(all_topics() if topics is None else topics)
    async with admin_client(connection) as admin:
        partitions = await _partitions(admin)
        replicas = min(_MOST_REPLICAS, await _brokers(admin))
        changes = [await _apply(admin, topic, partitions.get(topic.name), replicas) for topic in wanted]
        await _wait_for(admin, wanted)
    return changes


async def require_topics(connection: KafkaConnection, names: Collection[str]) -> None:
    """See that topics exist.

    Raises Misconfigured, naming those that do not and what makes them. BusUnavailable: Kafka cannot be reached.
    """
    async with admin_client(connection) as admin:
        missing = sorted(set(names) - set(await _partitions(admin)))
    if missing:
        raise Misconfigured(f"Kafka has no topic {', '.join(missing)}; `switchyard topics apply` creates it")


@contextlib.asynccontextmanager
async def admin_client(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for what the cluster tells and changes. Its block may take half a minute.

    Raises BusUnavailable: Kafka cannot be reached. Misconfigured: it does not let this user.
    """
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(_TIMEOUT_S * 1000))
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await admin.start()
            yield admin
    except FORBIDDEN as error:
        raise Misconfigured(f"Kafka does not let this user: {type(error).__name__} {error}") from error
    except BROKEN as error:
        raise BusUnavailable(f"Kafka cannot be reached: {type(error).__name__}") from error
    finally:
        with contextlib.suppress(*BROKEN):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> Mapping[str, int]:
    """How many partitions each topic has. Asks for all: asking for one by name may create it."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _brokers(admin: AIOKafkaAdminClient) -> int:
    """How many brokers there are, one at least: a broker that the cluster lost for a moment answers all the same."""
    while True:
        if brokers := (await admin.describe_cluster())["brokers"]:
            return len(brokers)
        await asyncio.sleep(_POLL_S)


async def _apply(admin: AIOKafkaAdminClient, topic: Topic, partitions: int | None, replicas: int) -> TopicChange:
    if partitions is None:
        return TopicChange(topic.name, await _create(admin, topic, replicas))
    changes = []
    if partitions < topic.partitions:
        with contextlib.suppress(InvalidPartitionsError):  # somebody else was faster
            await admin.create_partitions({topic.name: NewPartitions(topic.partitions)})
        changes.append("partitions raised")
    if await _change_settings(admin, topic):
        changes.append("settings changed")
    return TopicChange(topic.name, ", ".join(changes) or "unchanged")


async def _create(admin: AIOKafkaAdminClient, topic: Topic, replicas: int) -> str:
    new = NewTopic(topic.name, topic.partitions, replicas, topic_configs=dict(topic.config()))
    for name, code, *message in (await admin.create_topics([new])).topic_errors:
        if code == TopicAlreadyExistsError.errno:  # somebody else was faster
            return "unchanged"
        if code:
            raise Misconfigured(
                f"Kafka refuses the topic {name}: {for_code(code).__name__} {' '.join(map(str, message))}"
            )
    return "created"


async def _change_settings(admin: AIOKafkaAdminClient, topic: Topic) -> bool:
    """Set what the catalogue declares and leave the rest as it is; a broker that cannot tell is left alone."""
    try:
        found = await _settings(admin, topic.name)
    except IncompatibleBrokerVersion:
        return False
    if all(found.get(name, ("", 0))[0] == value for name, value in topic.config().items()):
        return False
    # This call replaces all that is set on the topic, so what others set is set again.
    kept = {name: value for name, (value, source) in found.items() if source == _SET_ON_THE_TOPIC}
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=kept | dict(topic.config()))
    for response in await admin.alter_configs([resource]):
        _refuse(topic.name, response.resources)
    return True


async def _settings(admin: AIOKafkaAdminClient, topic: str) -> dict[str, tuple[str, int]]:
    """A topic's settings and where each comes from."""
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    _refuse(topic, response.resources)
    [(*_, entries)] = response.resources
    return {name: (value, source) for name, value, _, source, *_ in entries}


def _refuse(topic: str, resources: Sequence[Any]) -> None:
    for code, message, *_ in resources:
        if code:
            raise Misconfigured(f"Kafka refuses the settings of {topic}: {for_code(code).__name__} {message}")


async def _wait_for(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> None:
    """Wait until the cluster's metadata knows every topic; bounded by the client's own time."""
    while True:
        found = await _partitions(admin)
        if all(found.get(topic.name, 0) >= topic.partitions for topic in topics):
            return
        await asyncio.sleep(_POLL_S)
