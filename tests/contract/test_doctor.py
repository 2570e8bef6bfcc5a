"""The doctor finds what was planted, names it, says what mends it, and changes nothing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from bus.admin import apply_topics
from bus.cluster import ClusterSeen, PartitionSeen, TopicSeen
from bus.connection import KafkaConnection
from bus.groups import Group, Member
from bus.lag import PartitionLag
from bus.publisher import Publisher
from bus.rights import Operation
from contracts.control import Course, Mode, Presence
from contracts.events import Drain, Pause, Resume
from contracts.ports import Record
from contracts.topics import LOOKUP, OUTCOMES, TICKETS, all_topics
from llm.standin.faults import Kind, Rule
from ops.cli import app
from ops.service.doctor import examine, of_clock
from ops.service.doctor_agents import of_agent, restlessness
from ops.service.doctor_kafka import of_rights, of_topic
from ops.service.findings import Finding, Severity
from ops.service.lag import AgentLag
from ops.service.topics import UNKNOWN, TopicState
from ops.settings import Settings, read_settings
from ops.wiring import AGENTS, INBOXES
from state.controls import PostgresControls
from state.migrate import migrate
from state.pool import open_pool
from state.postgres_parking import PostgresParking
from tests.contract.backends import embedded_kafka
from tests.unit.llm.kit import StandIn, standin_server

pytestmark = [pytest.mark.postgres, pytest.mark.redis]


@dataclass
class House:
    """A system whose topics and tables are as they should be, and which nobody works in."""

    connection: KafkaConnection
    dsn: str
    redis_url: str
    standin: StandIn
    odd: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings that are wrong

    @property
    def settings(self) -> Settings:
        right = {
            "kafka": {"bootstrap_servers": self.connection.bootstrap_servers},
            "postgres": {"dsn": self.dsn},
            "redis": {"url": self.redis_url},
            "llm": {"standin_url": self.standin.base_url},
        }
        return read_settings({group: values | self.odd.get(group, {}) for group, values in right.items()})

    async def found(self, about: str) -> Finding:
        """The one finding about something that is not fine."""
        [finding] = [
            one for one in await examine(self.settings) if one.about == about and one.severity is not Severity.FINE
        ]
        assert finding.mend
        return finding


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[KafkaConnection]:
    async with embedded_kafka(tmp_path) as connection:
        yield connection


@pytest.fixture(autouse=True)
def looks_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody comes and goes, looks that follow upon each other tell the same."""
    monkeypatch.setattr("ops.service.doctor_agents._LOOK_EVERY_S", 0.01)


@pytest.fixture(scope="module")
def put_up_standin() -> Iterator[Callable[[], StandIn]]:
    with standin_server() as put_up:
        yield put_up


@pytest.fixture
def bare(broker: KafkaConnection, postgres_dsn: str, redis_url: str, put_up_standin: Callable[[], StandIn]) -> House:
    """No topics, no tables."""
    return House(broker, postgres_dsn, redis_url, put_up_standin())


@pytest.fixture
async def house(bare: House) -> House:
    await apply_topics(bare.connection, all_topics(INBOXES))
    await migrate(bare.dsn)
    return bare


async def test_of_a_house_in_order_it_finds_only_that_nobody_works(house: House) -> None:
    findings = await examine(house.settings)
    odd = [(one.severity, one.about) for one in findings if one.severity is not Severity.FINE]
    assert odd == [(Severity.WARNING, f"agent {agent}") for agent in AGENTS]


async def test_kafka_that_is_down(house: House, unused_tcp_port: int) -> None:
    house.odd["kafka"] = {"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"}
    found = await house.found("kafka")
    assert (found.severity, str(unused_tcp_port) in found.says) == (Severity.FAULT, True)
    assert "KAFKA__BOOTSTRAP_SERVERS" in found.mend


async def test_a_database_that_is_down(house: House, unused_tcp_port: int) -> None:
    house.odd["postgres"] = {"dsn": f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none"}
    assert (await house.found("postgres")).severity is Severity.FAULT


async def test_redis_that_is_down_costs_but_stops_nothing(house: House, unused_tcp_port: int) -> None:
    house.odd["redis"] = {"url": f"redis://127.0.0.1:{unused_tcp_port}/0"}
    assert (await house.found("redis")).severity is Severity.WARNING


async def test_models_without_a_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    house.odd["llm"] = {"standin_url": None}
    found = await house.found("models")
    assert "API_KEY" in found.says


def with_keys(house: House, **keys: str) -> None:
    """Let the stand-in be the providers, each with keys of its own."""
    url = house.standin.base_url
    house.odd["llm"] = {"standin_url": None, "anthropic_base_url": url, "openai_base_url": f"{url}/v1", **keys}


async def test_a_key_that_a_provider_refuses_is_told_by_its_last_characters(house: House) -> None:
    with_keys(house, anthropic_api_key="sk-good-1111", openai_api_key="sk-good-2222,sk-bad-3333")
    house.standin.faults.replace([Rule(Kind.REFUSED, model="/v1/models", text="3333", status=401)])
    found = await house.found("models of openai")
    assert (found.severity, "ends with 3333 is refused: openai answered 401" in found.says) == (Severity.FAULT, True)
    assert "sk-bad" not in found.says
    assert "LLM__OPENAI_API_KEY" in found.mend
    assert [one.about for one in await examine(house.settings) if one.about.startswith("models")] == [
        "models of openai"
    ]
    assert house.standin.calls() == 0  # nothing was asked that costs


async def test_a_provider_that_cannot_be_reached(house: House, unused_tcp_port: int) -> None:
    with_keys(house, anthropic_api_key="sk-good-1111")
    house.odd["llm"]["anthropic_base_url"] = f"http://127.0.0.1:{unused_tcp_port}"
    found = await house.found("models of anthropic")
    assert (found.severity, "could not be asked" in found.says) == (Severity.FAULT, True)


async def test_migrations_that_are_missing_are_not_applied_by_looking(bare: House) -> None:
    await apply_topics(bare.connection, all_topics(INBOXES))
    assert "0001_tickets" in (await bare.found("migrations")).says
    connection = await asyncpg.connect(bare.dsn)
    assert await connection.fetchval("SELECT to_regclass('schema_migrations')") is None
    await connection.close()


async def test_a_topic_that_is_missing(bare: House) -> None:
    await apply_topics(bare.connection, [topic for topic in all_topics(INBOXES) if topic is not OUTCOMES])
    await migrate(bare.dsn)
    found = await bare.found(f"topic {OUTCOMES.name}")
    assert (found.severity, found.says) == (Severity.FAULT, "to be created")
    assert "switchyard topics apply" in found.mend


async def test_a_topic_with_too_few_partitions_and_odd_settings(bare: House) -> None:
    admin = AIOKafkaAdminClient(**bare.connection.client_options())
    await admin.start()
    settings = {**TICKETS.config(), "retention.ms": "1000"}
    await admin.create_topics([NewTopic(TICKETS.name, 2, 1, topic_configs=settings)])
    await admin.close()
    await apply_topics(bare.connection, [topic for topic in all_topics(INBOXES) if topic is not TICKETS])
    await migrate(bare.dsn)
    found = await bare.found(f"topic {TICKETS.name}")
    assert found.says == f"partitions to be raised from 2 to 8, retention.ms to be set to {TICKETS.retention_ms}"


async def test_records_that_nobody_publishes(house: House) -> None:
    connection = await asyncpg.connect(house.dsn)
    await connection.execute(
        "INSERT INTO outbox (ticket_id, topic, event_id, type, value, headers, group_name, caused_by, created_at)"
        " VALUES ('t', 'x', 'e', 'T', '', '', 'g', 'c', now() - interval '5 min')"
    )
    await connection.close()
    found = await house.found("outbox")
    assert "1 records wait to be published, the oldest for 5 min" in found.says


async def test_parked_tickets_past_due_and_dead_letters(house: House) -> None:
    async with open_pool(house.dsn) as pool:
        parking = PostgresParking(pool)
        for number in range(2):
            late = Record(TICKETS.name, 0, number, 1, None, b"")
            await parking.park("triage", f"t{number}", late, wait_s=-300, attempts=1, error="")
        await parking.block("lookup", "t9", Record("support.lookup.v1", 0, 9, 1, None, b""), attempts=1, error="")
    assert "2 parked tickets are past due" in (await house.found("parked")).says
    about_lookup = [one for one in await examine(house.settings) if one.about == "agent lookup"]
    assert any("1 tickets are stopped by dead letters" in one.says for one in about_lookup)


@pytest.mark.parametrize(("level", "said"), [(80, "was used to 80 %"), (100, "was used up")])
async def test_a_budget_that_is_used_up_or_nearly_so(house: House, level: int, said: str) -> None:
    connection = await asyncpg.connect(house.dsn)
    for reached in (50, 80, 100):
        if reached <= level:
            await connection.execute("INSERT INTO budget_alerts VALUES ('tenant', 'north', 'day', 'usd', $1)", reached)
    await connection.close()
    assert (await house.found("budget")).says == f"the budget of tenant north {said} within a day"


@pytest.mark.parametrize(("order", "said"), [(Pause, "paused"), (Drain, "drained")])
async def test_a_group_that_somebody_held_up_long_ago(house: House, order: type[Pause | Drain], said: str) -> None:
    about = {"group": "lookup", "reason": "index is rebuilt"}
    async with open_pool(house.dsn) as pool:
        controls = PostgresControls(pool)
        await controls.give(order(command_id="1", by="mia", **about))
        of_lookup = [one for one in await examine(house.settings) if one.about == "agent lookup"]
        assert [one.severity for one in of_lookup] == [Severity.FINE]  # it was just now
        await pool.execute("UPDATE control_orders SET ordered_at = ordered_at - interval '3 h'")
        found = await house.found("agent lookup")
        assert found.says == f"{said} 3 h ago by mia (index is rebuilt); 0 records wait"
        assert found.mend == "`switchyard resume lookup`"
        await controls.give(Resume(command_id="2", by="leo", **about))
    assert "it has no workers" in (await house.found("agent lookup")).says


async def test_a_worker_that_fell_silent(house: House) -> None:
    async with open_pool(house.dsn) as pool:
        controls = PostgresControls(pool)
        for name in ("ada", "bob"):
            await controls.report(Presence(name, "triage", "v1", "host-1", 41, Mode.RUNNING, 256, 17, 80, 12.5))
        await pool.execute("UPDATE workers SET seen_at = seen_at - interval '90 s' WHERE worker = 'ada'")
    [found] = [one for one in await examine(house.settings) if "said nothing" in one.says]
    assert (found.severity, found.about) == (Severity.WARNING, "agent triage")
    assert "worker ada has said nothing for 9" in found.says
    assert "process 41 on host-1" in found.mend


async def test_workers_that_come_and_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.service.doctor_agents._LOOK_EVERY_S", 1.0)

    async def come_and_go() -> None:
        while True:
            member = AIOKafkaConsumer(LOOKUP.name, **house.connection.client_options(), group_id="lookup")
            await member.start()
            await member.getmany(timeout_ms=300)
            await member.stop()

    async with staying(house), asyncio.TaskGroup() as tasks:
        coming = tasks.create_task(come_and_go())
        found = await house.found("agent lookup")
        coming.cancel()
    assert (found.severity, "its workers come and go" in found.says) == (Severity.WARNING, True)


@contextlib.asynccontextmanager
async def staying(house: House) -> AsyncIterator[None]:
    """A member that polls for as long."""
    member = AIOKafkaConsumer(LOOKUP.name, **house.connection.client_options(), group_id="lookup")
    await member.start()

    async def poll() -> None:
        while True:
            await member.getmany(timeout_ms=100)

    polling = asyncio.create_task(poll())
    try:
        yield
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        await member.stop()


async def test_records_from_the_future(house: House) -> None:
    producer = AIOKafkaProducer(**house.connection.client_options())
    await producer.start()
    in_an_hour = int((time.time() + 3600) * 1000)
    await producer.send_and_wait(LOOKUP.name, b"{}", key=b"t", timestamp_ms=in_an_hour)
    await producer.stop()
    found = await house.found("clock of a producer")
    assert f"{LOOKUP.name} has records stamped 3" in found.says


async def test_a_topic_that_the_catalogue_lacks(house: House) -> None:
    admin = AIOKafkaAdminClient(**house.connection.client_options())
    await admin.start()
    await admin.create_topics([NewTopic("support.left-over.v1", 1, 1)])
    await admin.close()
    found = await house.found("topic support.left-over.v1")
    assert (found.severity, found.says) == (Severity.WARNING, UNKNOWN)


def test_partitions_without_a_leader_or_short_of_copies() -> None:
    whole = PartitionSeen(0, 1, (1, 2, 3), (1, 2, 3))
    headless, short = replace(whole, number=1, leader=None, in_sync=()), replace(whole, number=2, in_sync=(1, 3))

    def found(*partitions: PartitionSeen) -> list[tuple[Severity, str]]:
        state = TopicState(TICKETS.name, "", TICKETS, TopicSeen(TICKETS.name, partitions))
        return [(one.severity, one.says) for one in of_topic(state)]

    assert found(whole) == []
    assert found(whole, short) == [(Severity.WARNING, "partitions 2 have replicas that are not in sync")]
    [(severity, says)] = found(headless, short)
    assert (severity, says.startswith("partitions 1 have no leader")) == (Severity.FAULT, True)


def test_a_cluster_that_does_not_tell_of_rights_lacks_none(house: House) -> None:
    seen = ClusterSeen([1], {TICKETS.name: TopicSeen(TICKETS.name, [])})
    assert list(of_rights(seen, [TICKETS], house.settings)) == []
    told = {TICKETS.name: TopicSeen(TICKETS.name, [], may=frozenset({Operation.READ}))}
    [found] = of_rights(ClusterSeen([1], told), [TICKETS], house.settings)
    assert found.says == "this user may not write it"
    [found] = of_rights(ClusterSeen([1], {}, may=frozenset()), [TICKETS], house.settings)
    assert (found.about, "--operation Create --cluster" in found.mend) == ("rights on the cluster", True)


async def test_work_without_workers(house: House) -> None:
    async with Publisher(house.connection) as publisher:
        await publisher.put(TICKETS.name, key=b"t1", value=b'{"ticket_id":"t1","body":"hi"}')
    found = await house.found("agent triage")
    assert (found.severity, found.says) == (Severity.FAULT, "it has no workers, and 1 records to handle")
    assert "switchyard run triage" in found.mend


def test_clocks_that_differ() -> None:
    now = datetime.now(UTC)
    assert list(of_clock("the database", now, now + timedelta(seconds=1))) == []
    [found] = of_clock("the database", now, now - timedelta(seconds=5))
    assert "5.0 s behind" in found.says


def test_a_group_that_is_stuck_or_never_settles_down() -> None:
    lag = AgentLag(
        "triage",
        TICKETS.name,
        Group("Stable", [Member("m", "c", "h", (0,))]),
        [PartitionLag(0, open=3, oldest_ms=0)],
        [],
        0,
        at_s=1_000.0,
    )
    [stuck] = of_agent(lag)
    assert (stuck.severity, "3 records wait" in stuck.says) == (Severity.FAULT, True)
    [young] = of_agent(replace(lag, at_s=60.0))
    assert young.severity is Severity.FINE
    [storm] = of_agent(lag, restless=2)
    assert storm.severity is Severity.WARNING


def test_an_agent_that_was_drained_is_no_fault_and_is_resumed() -> None:
    course = Course(Mode.DRAINED, by="ada", reason="a slow database")
    worker = Presence("w", "triage", "v1", "h", 7, Mode.DRAINED, 256, 0, 0, 0.0, held_up=str(course))
    lag = AgentLag(
        "triage", TICKETS.name, Group("Empty"), [PartitionLag(0, open=3, oldest_ms=0)], [worker], 0, at_s=9.0
    )
    [found] = of_agent(lag)
    assert (found.severity, found.mend) == (Severity.WARNING, "`switchyard resume triage`")
    assert found.says == "nothing new is started: drained by ada: a slow database"
    [away] = of_agent(replace(lag, workers=[replace(worker, mode=Mode.RUNNING, held_up="the store does not keep up")]))
    assert (away.severity, away.mend) == (Severity.WARNING, "mend what it names")


def test_workers_that_are_out_of_their_group_are_told_from_none() -> None:
    worker = Presence("w1", "triage", "v1", "host", 7, Mode.RUNNING, 256, 0, 0, 0.0)
    lag = AgentLag("triage", TICKETS.name, Group("Empty"), [], [worker], 0, at_s=1.0)
    [out] = of_agent(lag)
    assert (out.severity, out.mend) == (Severity.WARNING, "a rewind ends by itself; else `switchyard resume triage`")
    [none] = of_agent(replace(lag, workers=[]))
    assert none.mend == "`switchyard run triage`"


def test_a_group_that_changes_once_is_no_storm() -> None:
    one, two = (Group("Stable", [Member(name, "c", "h", (0,))]) for name in ("m", "n"))
    dealing = replace(one, state="PreparingRebalance")
    assert [restlessness(looks) for looks in ([one] * 4, [one, two, two, two], [one, two, one, two])] == [0, 1, 3]
    assert restlessness([one, dealing, dealing, one]) == 2


def test_the_exit_code_follows_the_worst(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    monkeypatch.setenv("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("SWITCHYARD_POSTGRES__DSN", f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 3, done.output
