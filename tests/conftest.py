"""Fixtures that give tests real services, each started when the first test asks for it.

A service that cannot be had skips its tests with the reason; with CI=true or SWITCHYARD_REQUIRE_SERVICES=1 it
fails them. A test may stop, kill or freeze a server (`kafka_server`, `postgres_server`, `redis_server`): it
runs again for the next test.
"""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.services import choice
from tests.services.native import Service, ServiceUnavailable
from tests.services.postgres import Postgres
from tests.services.reaper import Reaper
from tests.services.redis import flush

# A loaded machine is no reason to fail a property; what CI tries is the same at every run.
settings.register_profile(
    "switchyard",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
# HYPOTHESIS_PROFILE=long: the laws of frontier and lanes for some ten minutes each (`make laws`).
settings.register_profile("long", settings.get_profile("switchyard"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "switchyard"))

T = TypeVar("T")
STORY = pytest.StashKey[list[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run contract tests on every PostgreSQL to be had, and all others on the newest.

    Contract tests that need Kafka run on the newest alone: what they ask of PostgreSQL, others ask without Kafka.
    """
    if "postgres_kind" not in metafunc.fixturenames:
        return
    kinds, definition = choice.postgres_kinds(), metafunc.definition
    contract = "contract" in definition.path.parts and not {"kafka_bootstrap", "connection"} & set(
        metafunc.fixturenames
    )
    everywhere = contract or definition.get_closest_marker("every_postgres")
    metafunc.parametrize("postgres_kind", kinds if everywhere else kinds[:1], scope="session")


class ServicesTogether(LoadScopeScheduling):
    """Keeps the contract tests in one process, and the other tests that may need services in another.

    Each process starts the services it needs, once.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/unit/"):
            return file
        return "contract" if file.startswith("tests/contract/") else "system"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ServicesTogether | None:
    """With --dist loadscope, the services are the scope."""
    return ServicesTogether(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the process that prints the summary what it is to tell of services."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["services"] = session.config.stash.get(STORY, [])


class FromWorkers:
    """What the processes of a parallel run tell."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Keep what one of them told of services."""
        node.config.stash.setdefault(STORY, []).extend(getattr(node, "workeroutput", {}).get("services", []))


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the processes of a parallel run."""
    config.pluginmanager.register(FromWorkers())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell which services the tests ran against."""
    for line in config.stash.get(STORY, []):
        terminalreporter.write_line(f"service: {line}")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back what a command that runs inside a test sets for its whole process."""
    loggers = [logging.getLogger(name) for name in (None, "bus", "llm", "ops", "state", "aiokafka")]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers[:]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def reaper() -> Iterator[Reaper]:
    """Ends the processes handed to `watch`, also when pytest itself is killed."""
    reaper = Reaper()
    yield reaper
    reaper.close()


@pytest.fixture(scope="session")
def services(reaper: Reaper, pytestconfig: pytest.Config) -> Iterator[choice.Services]:
    """Starts services on demand and ends them with the session."""
    services = choice.Services(reaper)
    pytestconfig.stash[STORY] = services.story
    yield services
    services.close()


@pytest.fixture(scope="session")
def kafka_session(services: choice.Services) -> tuple[Service, str]:
    """The Apache Kafka of this run and its bootstrap address."""
    return _had(services.kafka)


@pytest.fixture
def kafka_server(kafka_session: tuple[Service, str]) -> Iterator[Service]:
    """The Kafka server itself, to stop, kill or freeze."""
    yield kafka_session[0]
    kafka_session[0].heal()


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_session: tuple[Service, str]) -> str:
    """The bootstrap address of a real Apache Kafka that creates no topics by itself. Use topic names of your own."""
    return kafka_session[1]


@pytest.fixture(scope="session")
def postgres_session(services: choice.Services, postgres_kind: str) -> Postgres:
    """The PostgreSQL of this run."""
    return _had(lambda: services.postgres(postgres_kind))


@pytest.fixture
def postgres_server(postgres_session: Postgres) -> Iterator[Postgres]:
    """A real PostgreSQL server as its superuser sees it; `.service` to stop, kill or freeze it."""
    yield postgres_session
    postgres_session.service.heal()


@pytest.fixture
def postgres_dsn(postgres_server: Postgres) -> Iterator[str]:
    """The address of a fresh, empty database of a real PostgreSQL, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_server.create_database(name)
    yield postgres_server.dsn(name)
    postgres_server.service.heal()
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def redis_session(services: choice.Services) -> tuple[Service, str]:
    """The Redis of this run and its address."""
    return _had(services.redis)


@pytest.fixture
def redis_server(redis_session: tuple[Service, str]) -> Iterator[Service]:
    """The Redis server itself, to stop, kill or freeze."""
    yield redis_session[0]
    redis_session[0].heal()


@pytest.fixture
def redis_url(redis_session: tuple[Service, str], redis_server: Service) -> str:
    """The address of a real, empty Redis or Valkey."""
    flush(redis_session[1])
    return redis_session[1]


def _had(start: Callable[[], T]) -> T:
    try:
        return start()
    except ServiceUnavailable as error:
        if choice.required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
