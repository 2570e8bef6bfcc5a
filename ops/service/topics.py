"""The cluster's topics against the catalogue."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bus.admin import TopicChange, apply_topics
from bus.cluster import ClusterSeen, TopicSeen, see_cluster
from bus.groups import Reader, groups
from contracts.errors import Misconfigured, SupportError
from contracts.topics import Topic, all_topics, is_ours
from ops.service.lag import lag_now
from ops.settings import Settings
from ops.wiring import INBOXES, kafka_connection

UNKNOWN = "not in the catalogue"
"""The drift of a topic that is called like one of ours and is none."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic of the cluster, of the catalogue or of both. `drift`: how it is not as the catalogue says."""

    name: str
    drift: str
    wanted: Topic | None
    seen: TopicSeen | None

    @property
    def read_by(self) -> Sequence[str]:
        """Our agents that read it."""
        return self.wanted.read_by if self.wanted else ()

    @property
    def without_leader(self) -> Sequence[int]:
        """Partitions that nobody can read or write now."""
        return [one.number for one in self.seen.partitions if one.leader is None] if self.seen else []

    @property
    def short_of_copies(self) -> Sequence[int]:
        """Partitions of which a replica is not in sync."""
        return [one.number for one in self.seen.partitions if one.is_short_of_copies] if self.seen else []

    def as_document(self) -> dict[str, Any]:
        """The topic as JSON values; null is what the cluster does not tell."""
        seen, wanted = self.seen, self.wanted
        return {
            "topic": self.name,
            "about": wanted.about if wanted else None,
            "drift": self.drift or None,
            "partitions": len(seen.partitions) if seen else None,
            "partitions_wanted": wanted.partitions if wanted else None,
            "replication": seen.replication if seen else None,
            "settings": {name: seen.settings.get(name) for name in _SETTINGS} if seen and seen.settings else None,
            "settings_wanted": dict(wanted.config()) if wanted else None,
            "records": seen.records if seen else None,
            "size_bytes": seen.size_bytes if seen else None,
            "without_leader": self.without_leader,
            "short_of_copies": self.short_of_copies,
            "read_by": list(self.read_by),
        }


@dataclass(frozen=True, slots=True)
class Consumer:
    """A group that reads a topic. `unfinished` is None where it is no agent's, or where its lag is not to be had."""

    group: str
    state: str
    members: int
    unfinished: int | None
    kafka_lag: int | None  # the logs' ends less the committed offsets, where there are any


@dataclass(frozen=True, slots=True)
class TopicDetail:
    """All there is to say of one topic."""

    state: TopicState
    consumers: Sequence[Consumer]

    @property
    def events(self) -> Mapping[str, str]:
        """What its records may hold: the event types, and what each says."""
        payloads = self.state.wanted.payloads if self.state.wanted else ()
        return {payload.type_name(): (payload.__doc__ or "").partition("\n")[0] for payload in payloads}

    def as_document(self) -> dict[str, Any]:
        """The topic as JSON values."""
        wanted, seen = self.state.wanted, self.state.seen
        return self.state.as_document() | {
            "events": [
                {
                    "type": payload.type_name(),
                    "about": self.events[payload.type_name()],
                    "schema": payload.model_json_schema(),
                }
                for payload in (wanted.payloads if wanted else ())
            ],
            "by_partition": [asdict(one) for one in seen.partitions] if seen else [],
            "consumers": [asdict(one) for one in self.consumers],
        }


_SETTINGS = ("cleanup.policy", "retention.ms", "max.message.bytes", "min.insync.replicas")


async def listed(settings: Settings) -> Sequence[TopicState]:
    """The catalogue's topics in its order, then those of the cluster that are called like ours.

    Raises BusUnavailable. Misconfigured: Kafka does not let this user look.
    """
    return states_in(await look(settings))


async def described(name: str, settings: Settings) -> TopicDetail:
    """One topic, and who reads it. Raises Misconfigured: there is none, here or there. BusUnavailable."""
    cluster = await look(settings, name)
    known = states_in(cluster)
    found = [state for state in known if state.name == name]
    if not found and name in cluster.topics:
        found = [TopicState(name, UNKNOWN, None, cluster.topics[name])]
    if not found:
        names = ", ".join(state.name for state in known)
        raise Misconfigured(f"there is no topic {name!r}, neither in Kafka nor in the catalogue; there are: {names}")
    [state] = found
    return TopicDetail(state, await _consumers(state, settings) if state.seen else ())


async def apply(
    settings: Settings, *, partitions: Mapping[str, int] | None = None, dry_run: bool = False
) -> Sequence[TopicChange]:
    """Make the cluster's topics what the catalogue says, or tell what that would change.

    `partitions`: so many for these topics instead; more than the catalogue says.
    Raises Misconfigured: no such topic, or fewer partitions than there are. BusUnavailable.
    """
    cluster = await look(settings)
    wanted = _raised(cluster, partitions or {})
    if dry_run:
        return [TopicChange(topic.name, cluster.drift(topic) or "unchanged") for topic in wanted]
    return await apply_topics(kafka_connection(settings.kafka), wanted)


async def drifted(settings: Settings) -> Sequence[TopicChange]:
    """The topics that are not as the catalogue says, with what is to be changed, and those that it lacks."""
    return [TopicChange(state.name, state.drift) for state in await listed(settings) if state.drift]


def _catalogue() -> Sequence[Topic]:
    return list(all_topics(INBOXES))


async def look(settings: Settings, *besides: str) -> ClusterSeen:
    """The cluster, and the topics of the catalogue and those named closer."""
    named = [*(topic.name for topic in _catalogue()), *besides]
    return await see_cluster(kafka_connection(settings.kafka), of=dict.fromkeys(named))


def states_in(cluster: ClusterSeen) -> Sequence[TopicState]:
    """The catalogue's topics in its order, then those of the cluster that are called like ours."""
    catalogue = _catalogue()
    known = {topic.name for topic in catalogue}
    ours = [TopicState(topic.name, cluster.drift(topic), topic, cluster.topics.get(topic.name)) for topic in catalogue]
    strangers = sorted(name for name in cluster.topics if is_ours(name) and name not in known)
    return [*ours, *(TopicState(name, UNKNOWN, None, cluster.topics[name]) for name in strangers)]


def _raised(cluster: ClusterSeen, partitions: Mapping[str, int]) -> Sequence[Topic]:
    catalogue = {topic.name: topic for topic in _catalogue()}
    for name, count in partitions.items():
        if name not in catalogue:
            raise Misconfigured(f"the catalogue has no topic {name!r}; it has: {', '.join(catalogue)}")
        seen = cluster.topics.get(name)
        least = max(catalogue[name].partitions, len(seen.partitions) if seen else 0)
        if count < least:
            raise Misconfigured(
                f"{name} cannot have {count} partitions: it has {least}, and Kafka only ever adds some; "
                f"ask for {least} or more"
            )
        catalogue[name] = replace(catalogue[name], partitions=count)
    return list(catalogue.values())


async def _consumers(state: TopicState, settings: Settings) -> Sequence[Consumer]:
    async with groups(kafka_connection(settings.kafka)) as kafka:
        readers = dict(await kafka.readers(state.name))
        for agent in state.read_by:
            if agent not in readers:
                readers[agent] = Reader(await kafka.describe(agent, state.name), {})
    return [await _consumer(group, reader, state, settings) for group, reader in sorted(readers.items())]


async def _consumer(group: str, reader: Reader, state: TopicState, settings: Settings) -> Consumer:
    ends = {one.number: one.end for one in state.seen.partitions} if state.seen else {}
    behind = [
        end - reader.committed[number] for number, end in ends.items() if end is not None and number in reader.committed
    ]
    return Consumer(
        group,
        reader.group.state,
        len(reader.group.members),
        await _unfinished(group, settings) if group in state.read_by else None,
        sum(behind) if behind else None,
    )


async def _unfinished(agent: str, settings: Settings) -> int | None:
    try:
        [lag] = await lag_now([agent], settings)
    except SupportError:  # the database is away, or its dead-letter topic is missing: the rest is told all the same
        return None
    return lag.unfinished
