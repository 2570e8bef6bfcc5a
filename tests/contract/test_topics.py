"""Topics against the catalogue, on the embedded broker and on Apache Kafka: what is told, what is odd or refused."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from bus.admin import apply_topics
from bus.cluster import see_cluster
from bus.connection import KafkaConnection
from bus.publisher import Publisher
from contracts.errors import BusUnavailable, Misconfigured
from contracts.topics import LOOKUP, OUTCOMES, TICKETS, all_topics, dead_letters_of
from ops.cli import app
from ops.service.topics import UNKNOWN, apply, described, drifted, listed
from ops.settings import Settings, read_settings
from ops.wiring import INBOXES
from tests.contract.kafka_way import KafkaWay, way_to
from tests.drill.taps import METADATA

STRANGERS = ("support.tickets.v1.gone.dlt", "support.old.v1")


@pytest.fixture
async def way(kafka_bootstrap: str) -> AsyncIterator[KafkaWay]:
    async with way_to(kafka_bootstrap) as way:
        yield way


@pytest.fixture
def settings(connection: KafkaConnection) -> Settings:
    """Of a house whose database is away: topics need none."""
    nowhere = {"dsn": "postgresql://nobody@127.0.0.1:1/none"}
    return read_settings({"kafka": {"bootstrap_servers": connection.bootstrap_servers}, "postgres": nowhere})


async def make(connection: KafkaConnection, *topics: NewTopic) -> None:
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    try:
        await admin.create_topics(list(topics))
    finally:
        await admin.close()


async def remove(connection: KafkaConnection, *topics: str) -> None:
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    try:
        await admin.delete_topics(list(topics))
    finally:
        await admin.close()


async def test_a_topic_is_told_as_the_cluster_has_it(connection: KafkaConnection, settings: Settings) -> None:
    await apply(settings)
    before = {state.name: state for state in await listed(settings)}[LOOKUP.name].seen
    async with Publisher(connection) as publisher:
        for number in range(5):
            await publisher.put(LOOKUP.name, key=b"%d" % number, value=b"{}")
    detail = await described(LOOKUP.name, settings)
    told = detail.as_document()
    assert before is not None
    assert before.records is not None
    assert told["records"] == before.records + 5
    assert (told["partitions"], told["replication"], told["drift"]) == (8, 1, None)
    assert told["settings"]["retention.ms"] == str(LOOKUP.retention_ms)
    assert [one["leader"] is not None and one["in_sync"] == one["replicas"] for one in told["by_partition"]] == [
        True
    ] * 8
    assert [event["type"] for event in told["events"]] == ["LookupRequested"]
    assert "round" in told["events"][0]["schema"]["properties"]
    [reader] = [one for one in detail.consumers if one.group == "lookup"]
    assert (reader.members, reader.unfinished) == (0, None)


async def test_the_size_of_a_topic_is_told_where_the_cluster_tells_it(
    connection: KafkaConnection, settings: Settings, request: pytest.FixtureRequest
) -> None:
    topic = replace(OUTCOMES, name=f"sized-{uuid.uuid4().hex}", partitions=2)
    await apply_topics(connection, [topic])
    async with Publisher(connection) as publisher:
        await publisher.put(topic.name, key=b"k", value=b"v" * 5_000)
    [seen] = [(await see_cluster(connection, of=[topic.name])).topics[topic.name]]
    if request.node.callspec.params["connection"] == "kafka":
        assert 5_000 <= (seen.size_bytes or 0) < 10_000
    else:
        assert seen.size_bytes is None


async def test_topics_that_the_catalogue_lacks_are_named(connection: KafkaConnection, settings: Settings) -> None:
    await apply(settings)
    await make(connection, *(NewTopic(name, 1, 1) for name in STRANGERS), NewTopic(f"theirs-{uuid.uuid4().hex}", 1, 1))
    try:
        changes = {change.topic: change.change for change in await drifted(settings)}
        assert changes == dict.fromkeys(STRANGERS, UNKNOWN)
        assert (await described(STRANGERS[0], settings)).state.drift == UNKNOWN
    finally:
        await remove(connection, *STRANGERS)


async def test_partitions_are_raised_and_never_lowered(connection: KafkaConnection, settings: Settings) -> None:
    letters = dead_letters_of(LOOKUP, "lookup").name
    await apply(settings)
    now = len((await see_cluster(connection)).topics[letters].partitions)  # another test may have raised it before
    [told] = [one for one in await apply(settings, partitions={letters: now + 1}, dry_run=True) if one.topic == letters]
    assert told.change == f"partitions to be raised from {now} to {now + 1}"
    changes = {one.topic: one.change for one in await apply(settings, partitions={letters: now + 1})}
    assert (changes[letters], {*changes.values()}) == ("partitions raised", {"partitions raised", "unchanged"})
    assert {one.change for one in await apply(settings, partitions={letters: now + 1})} == {"unchanged"}
    assert await drifted(settings) == []  # more than the catalogue says is no drift
    with pytest.raises(Misconfigured, match=rf"cannot have {now} partitions: it has {now + 1}, .*ask for {now + 1} or"):
        await apply(settings, partitions={letters: now})


@pytest.mark.kafka
async def test_a_topic_waits_for_a_broker_that_the_cluster_lost_for_a_moment(way: KafkaWay) -> None:
    """It answers all the same, and a topic for none of them was taken for a wrong setting."""
    topic = replace(OUTCOMES, name=f"early-{uuid.uuid4().hex}", partitions=1)
    way.meddle(METADATA, 0, spared=1, times=5)  # the first is how a client finds the cluster
    assert [change.change for change in await apply_topics(way.connection, [topic])] == ["created"]
    assert way.mischief.left == 0


async def test_fewer_than_the_catalogue_says_are_refused_before_anything_is_made(
    connection: KafkaConnection, settings: Settings
) -> None:
    with pytest.raises(Misconfigured, match="cannot have 2 partitions"):
        await apply(settings, partitions={TICKETS.name: 2})


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["apply", "--partitions", "support.tickets.v1"], "should look like support.tickets.v1=16"),
        (["apply", "--partitions", "nothing=4"], "the catalogue has no topic 'nothing'; it has: support.tickets.v1"),
        (["describe", "nothing"], "there is no topic 'nothing', neither in Kafka nor in the catalogue"),
    ],
)
async def test_bad_input_is_one_sentence(
    connection: KafkaConnection, monkeypatch: pytest.MonkeyPatch, asked: list[str], sentence: str
) -> None:
    monkeypatch.setenv("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["topics", *asked])
    assert isinstance(done.exception, Misconfigured)  # exit code 2
    assert sentence in str(done.exception)


@pytest.mark.parametrize("asked", [["list"], ["describe", TICKETS.name], ["apply"], ["check"]])
def test_a_cluster_that_is_down_is_said_to_be(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{unused_tcp_port}")
    done = CliRunner().invoke(app, ["topics", *asked])
    assert isinstance(done.exception, BusUnavailable)
    assert "Kafka cannot be reached" in str(done.exception)


async def test_list_and_check_print_each_topic_once(
    connection: KafkaConnection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(settings)
    monkeypatch.setenv("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)
    names = [topic.name for topic in all_topics(INBOXES)]
    text = (await asyncio.to_thread(CliRunner().invoke, app, ["topics", "list"])).output.splitlines()
    assert [line.split()[0] for line in text[1:]] == names
    document = json.loads((await asyncio.to_thread(CliRunner().invoke, app, ["topics", "list", "--json"])).output)
    assert [row["topic"] for row in document] == names
    check = await asyncio.to_thread(CliRunner().invoke, app, ["topics", "check"])
    assert (check.exit_code, check.output) == (0, "as the catalogue says\n")
