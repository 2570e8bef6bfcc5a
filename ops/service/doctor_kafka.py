"""What the doctor sees of Kafka: whether it answers, its topics, what this user may do, and clocks that are ahead."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from bus.cluster import HIDDEN, ClusterSeen, stamped_from
from bus.groups import groups
from bus.rights import Operation, Rights
from contracts.errors import SupportError
from contracts.topics import CONTROL, Topic, dead_letters_of
from ops.service.findings import MOST_SKEW_S, Finding, Severity
from ops.service.topics import UNKNOWN, TopicState, look, states_in
from ops.settings import PREFIX, Settings
from ops.wiring import AGENTS, INBOXES, kafka_connection

_READ = frozenset({CONTROL.name} | {name for a, t in INBOXES.items() for name in (t.name, dead_letters_of(t, a).name)})


async def of_kafka(settings: Settings) -> AsyncIterator[Finding]:
    """Whether it answers, and what is odd there."""
    address = settings.kafka.bootstrap_servers
    try:
        cluster = await look(settings)
        async with groups(kafka_connection(settings.kafka)) as kafka:
            of_groups = {agent: await kafka.rights(agent) for agent in AGENTS}
        stamps = await stamped_from(kafka_connection(settings.kafka), _inboxes(), _later_ms())
    except SupportError as error:
        mend = f"start it, or set {PREFIX}KAFKA__BOOTSTRAP_SERVERS and its credentials"
        yield Finding(Severity.FAULT, "kafka", f"{address}: {error}", mend)
        return
    yield Finding(Severity.FINE, "kafka", f"{address} answers; its brokers: {_listed(cluster.brokers)}")
    states = states_in(cluster)
    found = [
        *(finding for state in states for finding in of_topic(state)),
        *of_rights(cluster, (state.wanted for state in states if state.wanted), settings),
        *(one for group, may in of_groups.items() if (one := of_group_rights(group, may, settings))),
        *of_stamps(stamps, time.time()),
    ]
    for finding in found:
        yield finding


def of_topic(state: TopicState) -> Iterator[Finding]:
    """Where a topic is not as the catalogue says, or not whole."""
    about = f"topic {state.name}"
    if state.drift == UNKNOWN:
        mend = "`switchyard topics describe` says who reads it; delete it with Kafka's own tools if nobody does"
        yield Finding(Severity.WARNING, about, state.drift, mend)
    elif state.drift and state.drift != HIDDEN:
        severity = Severity.FAULT if state.seen is None else Severity.WARNING
        yield Finding(severity, about, state.drift, "`switchyard topics apply`")
    if state.without_leader:
        says = f"partitions {_listed(state.without_leader)} have no leader: nobody can read or write them"
        yield Finding(Severity.FAULT, about, says, f"start the brokers: `switchyard topics describe {state.name}`")
    elif state.short_of_copies:
        says = f"partitions {_listed(state.short_of_copies)} have replicas that are not in sync"
        yield Finding(Severity.WARNING, about, says, f"look at the brokers: `switchyard topics describe {state.name}`")


def of_rights(cluster: ClusterSeen, topics: Iterable[Topic], settings: Settings) -> Iterator[Finding]:
    """What workers with these credentials may not do. Nothing where the cluster does not tell, or lets everybody."""
    wanted = list(topics)
    to_create = [topic for topic in wanted if topic.name not in cluster.topics.keys() | cluster.hidden]
    if to_create and cluster.may is not None and Operation.CREATE not in cluster.may:
        says = f"this user may not create topics, unless by their names, and {len(to_create)} are to be created"
        yield Finding(
            Severity.WARNING, "rights on the cluster", says, _granting(settings, [Operation.CREATE], "--cluster")
        )
    for topic in wanted:
        needed = {Operation.WRITE, Operation.READ} if topic.name in _READ else {Operation.WRITE}
        seen = cluster.topics.get(topic.name)
        may: Rights = frozenset() if topic.name in cluster.hidden else seen.may if seen else None
        missing = sorted(needed - may) if may is not None else []
        if missing:
            says = f"this user may not {' or '.join(one.name.lower() for one in missing)} it"
            mend = _granting(settings, missing, f"--topic {topic.name}")
            yield Finding(Severity.FAULT, f"rights on topic {topic.name}", says, mend)


def of_group_rights(group: str, may: Rights, settings: Settings) -> Finding | None:
    """Whether a worker with these credentials may be of an agent's group."""
    if may is None or Operation.READ in may:
        return None
    mend = _granting(settings, [Operation.READ], f"--group {group}")
    return Finding(Severity.FAULT, f"rights on group {group}", "this user may not join it", mend)


def of_stamps(stamps: Mapping[tuple[str, int], int], now_s: float) -> Iterator[Finding]:
    """Records from the future: Kafka does not tell its clock, but each record the one of whoever stamped it."""
    for topic in sorted({topic for topic, _ in stamps}):
        ahead_s = max(stamp for (name, _), stamp in stamps.items() if name == topic) / 1000 - now_s
        says = f"{topic} has records stamped {ahead_s:.1f} s in the future"
        mend = "run an NTP client, such as chronyd, where its producers run, and here: ages and deadlines follow it"
        yield Finding(Severity.WARNING, "clock of a producer", says, mend)


def _inboxes() -> Sequence[str]:
    return [topic.name for topic in INBOXES.values()]


def _later_ms() -> int:
    return int((time.time() + MOST_SKEW_S) * 1000)


def _granting(settings: Settings, operations: Iterable[Operation], on: str) -> str:
    kafka = settings.kafka
    wanted = " ".join(f"--operation {one.name.title()}" for one in operations)
    to = f"--bootstrap-server {kafka.bootstrap_servers} --add --allow-principal User:{kafka.sasl_username or 'NAME'}"
    return f"`kafka-acls.sh {to} {wanted} {on}`"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
