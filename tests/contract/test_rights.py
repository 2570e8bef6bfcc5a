"""What this user may do with an Apache Kafka that has an authorizer: what is missing is told, and what grants it."""

from collections.abc import Iterator
from types import MappingProxyType

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from bus.admin import admin_client, apply_topics
from bus.connection import KafkaConnection
from bus.groups import groups
from bus.rights import Operation
from contracts.errors import BusUnavailable, Misconfigured
from contracts.topics import LOOKUP, OUTCOMES, REASONING, TICKETS, all_topics
from ops.service.doctor_kafka import of_kafka
from ops.service.findings import Finding, Severity
from ops.service.topics import apply, listed
from ops.settings import Settings, read_settings
from ops.wiring import INBOXES
from tests.contract.backends import until
from tests.services.choice import required
from tests.services.kafka import native_kafka
from tests.services.native import ServiceUnavailable
from tests.services.reaper import Reaper

pytestmark = pytest.mark.kafka

_TOPIC, _GROUP, _LITERAL = 2, 3, 3
_DENY, _ALLOW, _ALL = 2, 3, 2
_EVERYBODY = "User:ANONYMOUS"  # who does not log in, the broker too
_AUTHORIZED = MappingProxyType(
    {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
)


@pytest.fixture(scope="module")
def guarded_bootstrap(reaper: Reaper) -> Iterator[str]:
    """A Kafka of this module's own, in which anybody may do anything that no rule forbids."""
    try:
        service, bootstrap = native_kafka(reaper, may_install=required(), more=_AUTHORIZED)
    except ServiceUnavailable as error:
        if required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    service.start()
    yield bootstrap
    service.stop()


async def rule(admin: AIOKafkaAdminClient, kind: int, name: str, operation: int, permission: int) -> None:
    request = CreateAclsRequest(kind, name, _LITERAL, _EVERYBODY, "*", operation, permission)
    response = await admin._send_to_controller(request)
    assert not response.to_object()["creation_responses"][0]["error_code"]


async def has_a_coordinator(connection: KafkaConnection) -> bool:
    try:
        async with groups(connection) as kafka:
            await kafka.describe("triage", TICKETS.name)
    except BusUnavailable:
        return False
    return True


def settings_of(bootstrap: str) -> Settings:
    return read_settings({"kafka": {"bootstrap_servers": bootstrap}})


async def found(settings: Settings) -> dict[str, Finding]:
    findings = [finding async for finding in of_kafka(settings)]
    return {one.about: one for one in findings if one.severity is not Severity.FINE}


@pytest.fixture(scope="module")
def forbidden() -> set[str]:
    """The rules there are by now."""
    return set()


@pytest.fixture
async def guarded(guarded_bootstrap: str, forbidden: set[str]) -> Settings:
    """Writing tickets, seeing outcomes, altering reasoning and joining lookup are forbidden."""
    connection = KafkaConnection(guarded_bootstrap)
    if not forbidden:
        await apply_topics(connection, all_topics(INBOXES))
        async with admin_client(connection) as admin:
            await rule(admin, _TOPIC, TICKETS.name, _ALL, _ALLOW)
            await rule(admin, _TOPIC, TICKETS.name, Operation.WRITE, _DENY)
            await rule(admin, _TOPIC, REASONING.name, _ALL, _ALLOW)
            await rule(admin, _TOPIC, REASONING.name, Operation.ALTER, _DENY)
            await rule(admin, _TOPIC, OUTCOMES.name, _ALL, _DENY)
            await rule(admin, _GROUP, "lookup", Operation.DESCRIBE, _ALLOW)
            await rule(admin, _GROUP, "review", _ALL, _DENY)
        await until(lambda: has_a_coordinator(connection), 60)  # a new cluster takes its time
        forbidden.add("all")
    return settings_of(guarded_bootstrap)


async def test_what_a_worker_may_not_do_is_told_with_what_grants_it(guarded: Settings) -> None:
    findings = await found(guarded)
    assert findings.keys() == {
        f"rights on topic {TICKETS.name}",
        f"rights on topic {OUTCOMES.name}",
        "rights on group lookup",
        "rights on group review",
    }
    tickets = findings[f"rights on topic {TICKETS.name}"]
    assert (tickets.severity, tickets.says) == (Severity.FAULT, "this user may not write it")
    assert tickets.mend.endswith(f"--allow-principal User:NAME --operation Write --topic {TICKETS.name}`")
    assert findings["rights on group lookup"].says == "this user may not join it"


async def test_a_topic_that_may_not_be_seen_is_not_taken_for_one_that_is_missing(guarded: Settings) -> None:
    [outcomes] = [state for state in await listed(guarded) if state.name == OUTCOMES.name]
    assert outcomes.drift == "this user may not see it"


async def test_what_may_not_be_changed_or_seen_is_said_in_a_sentence(guarded: Settings) -> None:
    with pytest.raises(Misconfigured, match=f"Kafka does not let this user: .*{REASONING.name}"):
        await apply(guarded, partitions={REASONING.name: 9})
    async with groups(KafkaConnection(guarded.kafka.bootstrap_servers)) as kafka:
        with pytest.raises(Misconfigured, match="Kafka lets this user not look at it"):
            await kafka.describe("review", LOOKUP.name)


async def test_a_cluster_without_an_authorizer_is_told_nothing_about_rights(kafka_bootstrap: str) -> None:
    await apply_topics(KafkaConnection(kafka_bootstrap), all_topics(INBOXES))
    assert not [about for about in await found(settings_of(kafka_bootstrap)) if about.startswith("rights")]
