"""The doctor finds what was planted, names it, says what mends it, and changes nothing."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.groups import Group, Member
from bus.lag import PartitionLag
from bus.publisher import Publisher
from contracts.control import Course, Mode, Presence
from contracts.ports import Record
from contracts.topics import OUTCOMES, TICKETS, all_topics
from ops.broker.server import EmbeddedBroker
from ops.cli import app
from ops.service.doctor import Finding, Severity, _of_clock, examine, of_agent
from ops.service.lag import AgentLag
from ops.settings import Settings, read_settings
from ops.wiring import AGENTS, INBOXES
from state.migrate import migrate
from state.pool import open_pool
from state.postgres_parking import PostgresParking

pytestmark = [pytest.mark.postgres, pytest.mark.redis]


@dataclass
class House:
    """A system whose topics and tables are as they should be, and which nobody works in."""

    connection: KafkaConnection
    dsn: str
    redis_url: str
    odd: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings that are wrong

    @property
    def settings(self) -> Settings:
        right = {
            "kafka": {"bootstrap_servers": self.connection.bootstrap_servers},
            "postgres": {"dsn": self.dsn},
            "redis": {"url": self.redis_url},
            "llm": {"standin_url": "http://127.0.0.1:1"},
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
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    yield KafkaConnection(broker.bootstrap_servers)
    await broker.stop()


@pytest.fixture
def bare(broker: KafkaConnection, postgres_dsn: str, redis_url: str) -> House:
    """No topics, no tables."""
    return House(broker, postgres_dsn, redis_url)


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
    assert "1 records wait to be published, the oldest for 30" in found.says


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


async def test_a_budget_that_is_used_up(house: House) -> None:
    connection = await asyncpg.connect(house.dsn)
    await connection.execute("INSERT INTO budget_alerts VALUES ('tenant', 'north', 'day', 'usd', 100)")
    await connection.close()
    assert "tenant north" in (await house.found("budget")).says


async def test_work_without_workers(house: House) -> None:
    async with Publisher(house.connection) as publisher:
        await publisher.put(TICKETS.name, key=b"t1", value=b'{"ticket_id":"t1","body":"hi"}')
    found = await house.found("agent triage")
    assert (found.severity, found.says) == (Severity.FAULT, "it has no workers, and 1 records to handle")
    assert "switchyard run triage" in found.mend


def test_clocks_that_differ() -> None:
    now = datetime.now(UTC)
    assert list(_of_clock(now, now + timedelta(seconds=1))) == []
    [found] = _of_clock(now, now - timedelta(seconds=5))
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
    [storm] = of_agent(replace(lag, group=replace(lag.group, state="PreparingRebalance")))
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
    assert (out.severity, out.mend) == (Severity.WARNING, "`switchyard resume triage`; a rewind ends by itself")
    [none] = of_agent(replace(lag, workers=[]))
    assert none.mend == "`switchyard run triage`"


def test_the_exit_code_follows_the_worst(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    monkeypatch.setenv("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("SWITCHYARD_POSTGRES__DSN", f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 3, done.output
