"""The walk-throughs of CONTRIBUTING.md, done in a copy of the project as a newcomer would."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bus.admin import apply_topics
from bus.codec import encode
from bus.connection import KafkaConnection
from bus.follow import Follower, follow
from bus.publisher import Publisher
from contracts.events import Event, TicketSubmitted
from contracts.ports import Position, Settlement
from contracts.ticket import Signature, Ticket, escalate
from contracts.topics import EFFECTS, TICKETS
from contracts.values import Label
from llm.standin.faults import Faults
from llm.standin.ledger import Ledger
from llm.standin.server import create_app, running
from ops.broker.server import EmbeddedBroker
from state.migrate import migrate
from state.pool import open_pool
from state.postgres_tickets import PostgresTickets
from tests.docs.documents import ROOT, apply_change, blocks, copy_of_the_project, write_new_file

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
CONFTEST = """
import os

import pytest


@pytest.fixture
def redis_url() -> str:
    return os.environ["REDIS_OF_THE_TEST"]
"""


class Project(NamedTuple):
    """A copy of the project after both walk-throughs."""

    root: Path
    new_files: list[str]
    changed_files: list[str]

    @property
    def code(self) -> list[str]:
        """The Python files among them."""
        return [name for name in (*self.new_files, *self.changed_files) if name.endswith(".py")]

    def run(self, *command: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        """Run a Python module in it."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=100,
        )

    def tests(self, *arguments: str, env: Mapping[str, str] = {}) -> str:
        """What pytest says last after running the tests of the walk-throughs, which must pass."""
        ran = self.run("pytest", "-q", "-p", "no:cacheprovider", *arguments, "tests", env=env)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = copy_of_the_project(tmp_path_factory.mktemp("newcomer"))
    shown = [*blocks(CONTRIBUTING, "python"), *blocks(CONTRIBUTING, "markdown")]
    new_files = [str(write_new_file(root, block)) for block in shown]
    changed_files = [str(apply_change(root, block)) for block in blocks(CONTRIBUTING, "diff")]
    (root / "tests/conftest.py").write_text(CONFTEST, encoding="utf-8")
    return Project(root, new_files, changed_files)


def test_an_agent_and_a_port_are_the_files_that_are_shown(project: Project) -> None:
    assert project.new_files == [
        "agents/goodwill.py",
        "tests/unit/agents/test_goodwill.py",
        "state/memory_roster.py",
        "state/redis_roster.py",
        "tests/contract/test_roster.py",
        "agents/prompts/goodwill.md",
    ]
    assert project.changed_files == ["ops/wiring.py", "contracts/ports.py"]


def test_the_agent_is_a_file_of_sixty_lines_and_a_line_of_wiring(project: Project) -> None:
    assert len((project.root / "agents/goodwill.py").read_text().splitlines()) <= 60
    [wiring] = [block for block in blocks(CONTRIBUTING, "diff") if "ops/wiring.py" in block.text]
    assert len(re.findall(r"^[+-](?!--)", wiring.text, re.MULTILINE)) == 1


def test_their_tests_pass(project: Project) -> None:
    assert project.tests("-m", "not redis").startswith("6 passed")


@pytest.mark.redis
def test_the_port_keeps_its_promise_on_redis_too(project: Project, redis_url: str) -> None:
    assert project.tests("-m", "redis", env={"REDIS_OF_THE_TEST": redis_url}).startswith("2 passed")


def test_the_files_are_formatted_and_linted(project: Project) -> None:
    for command in (["format", "--check"], ["check"]):
        ran = project.run("ruff", *command, "--no-cache", *project.code)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.system
def test_the_layers_and_types_hold(project: Project) -> None:
    layers = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=project.root, capture_output=True, text=True
    )
    assert layers.returncode == 0, layers.stdout + layers.stderr
    if (cache := ROOT / ".mypy_cache").exists():  # saves a minute
        shutil.copytree(cache, project.root / cache.name)
    ours = [name for name in project.code if not name.startswith("tests/")]
    types = project.run("mypy", *ours)
    assert types.returncode == 0, types.stdout + types.stderr


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaConnection]:
    """A broker of its own: the new agent's group and dead letters stay out of everybody's way."""
    broker = EmbeddedBroker(tmp_path / "broker", "127.0.0.1", 0)
    await broker.start()
    yield KafkaConnection(broker.bootstrap_servers)
    await broker.stop()


@pytest.fixture
async def model_url() -> AsyncIterator[str]:
    """A stand-in that has a wit for the new agent's question."""

    def wit(title: str, system: str, content: str) -> dict[str, Any]:
        assert (title, "complains" in system) == ("Trouble", True)
        return {"trouble": "broken" if "broken" in content else "other"}

    async with running(create_app(wit, ledger=Ledger(), faults=Faults())) as url:
        yield url


@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.system
async def test_the_new_agent_runs_and_apologises(
    project: Project, kafka: KafkaConnection, postgres_dsn: str, redis_url: str, model_url: str
) -> None:
    env = {
        "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SWITCHYARD_POSTGRES__DSN": postgres_dsn,
        "SWITCHYARD_REDIS__URL": redis_url,
        "SWITCHYARD_LLM__STANDIN_URL": model_url,
        "SWITCHYARD_TENANTS": "",
    }
    await apply_topics(kafka)
    applied = await asyncio.to_thread(project.run, "ops.cli", "topics", "apply", "--json", env=env)
    made = {row["topic"] for row in json.loads(applied.stdout) if row["change"] == "created"}
    assert made == {"support.outcomes.v1.goodwill.dlt"}, applied.stderr
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli", "run", "goodwill", cwd=project.root, env={**os.environ, **env}
    )
    try:
        async with follow(kafka, EFFECTS.name, from_start=True) as effects:
            await _complain(kafka, postgres_dsn)
            command = json.loads(await _first_value(effects, limit_s=60))
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), timeout=40) == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    assert (command["ticket_id"], command["to_email"]) == ("t-1", "ann@example.com")
    assert command["text"] == "We are sorry for what came to you broken or wrong."


async def _complain(kafka: KafkaConnection, dsn: str) -> None:
    """Store a ticket as triage would that gives a complaint to a person, and publish that outcome."""
    said = TicketSubmitted(ticket_id="t-1", from_email="ann@example.com", body="The third broken lamp!")
    event = Event(id="said", source="urn:test", time=datetime.now(UTC), data=said)
    opened = Ticket(ticket_id="t-1", tenant_id="default").open_round(event)
    round_ = opened.rounds[0].model_copy(update={"label": Label.COMPLAINT})
    step = escalate(opened, round_, Signature("triage", "test"), reason="a test", reply="")
    await migrate(dsn)
    async with open_pool(dsn) as pool:
        stored = Settlement("triage", event, Position(TICKETS.name, 0, 0), step.ticket)
        await PostgresTickets(pool).settle([stored], "test")
    outcome = encode(
        step.emits[0], cause=event, event_id="e-1", time=event.time, source="urn:test", deadline=None, traceparent=None
    )
    async with Publisher(kafka) as publisher:
        await publisher.publish([outcome])


async def _first_value(follower: Follower, limit_s: float) -> bytes:
    async with asyncio.timeout(limit_s):
        while not (records := await follower.next(0.5)):
            pass
    return bytes(records[0].value)
