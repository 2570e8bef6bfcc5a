"""The same services as containers, where an engine answers and has, or can pull, their images."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

import docker
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException
from testcontainers.core.container import DockerContainer
from testcontainers.core.exceptions import ContainerStartException

from tests.services.kafka import SETTINGS, answers_kafka
from tests.services.native import ServiceUnavailable, free_port
from tests.services.postgres import Postgres, can_connect
from tests.services.redis import answers_ping

KAFKA_IMAGE = "apache/kafka:4.3.0"
POSTGRES_IMAGE = "postgres:17"
REDIS_IMAGE = "redis:7"
IMAGES = (KAFKA_IMAGE, POSTGRES_IMAGE, REDIS_IMAGE)
HOST = "127.0.0.1"
# What the engine's client and testcontainers raise when the engine is away, slow, or lacks an image.
ENGINE_ERRORS = (DockerException, RequestException, ContainerStartException, OSError)


@dataclass
class ContainerService:
    """One container, bound to a port of 127.0.0.1 that it keeps when it is started again."""

    name: str
    container: DockerContainer
    answers: Callable[[], bool]
    start_limit_s: float = 90.0

    def start(self) -> None:
        """Start it and return when it answers. Raises ServiceUnavailable: no image, or it did not come up."""
        try:
            if self.container._container is None:
                self.container.start()
            else:
                self.container.get_wrapped_container().start()
        except ENGINE_ERRORS as error:
            raise ServiceUnavailable(f"{self.name} cannot run as a container: {error}") from error
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Shut it down in order."""
        self.container.get_wrapped_container().stop(timeout=20)

    def kill(self) -> None:
        """End it at once."""
        self.container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Freeze its processes."""
        self.container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let them go on."""
        self.container.get_wrapped_container().unpause()

    def heal(self) -> None:
        """Make it run and answer again."""
        inside = self.container.get_wrapped_container()
        inside.reload()
        if inside.status == "paused":
            inside.unpause()
        elif inside.status != "running":
            inside.start()
        self._wait_until_it_answers()

    def remove(self) -> None:
        """End it for good."""
        with suppress(*ENGINE_ERRORS):
            self.container.stop()

    def _wait_until_it_answers(self) -> None:
        limit = time.monotonic() + self.start_limit_s
        while not self.answers():
            if time.monotonic() > limit:
                log = self.container.get_wrapped_container().logs(tail=60).decode(errors="replace")
                raise ServiceUnavailable(f"{self.name} did not come up; the end of its log:\n{log}")
            time.sleep(0.1)


def an_engine_answers() -> bool:
    """Whether a container engine can be reached."""
    try:
        with closing(docker_client()) as client:
            return bool(client.ping())
    except ENGINE_ERRORS:
        return False


def has_image(name: str) -> bool:
    """Whether the engine has an image, or can pull it."""
    try:
        with closing(docker_client()) as client:
            try:
                client.images.get(name)
            except ImageNotFound:
                client.images.pull(name)
    except ENGINE_ERRORS:
        return False
    return True


def docker_client() -> "docker.DockerClient":
    """The engine that the environment names."""
    return docker.from_env(timeout=60)


def kafka_container() -> tuple[ContainerService, str]:
    """One KRaft node and its bootstrap address, not started yet."""
    port = free_port()
    container = _container(KAFKA_IMAGE, port, port)
    settings = SETTINGS | {
        "listeners": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": "1@localhost:9093",
    }
    for name, value in settings.items():
        container.with_env("KAFKA_" + name.replace(".", "_").upper(), value)
    container.with_env("KAFKA_HEAP_OPTS", "-Xms256m -Xmx768m")
    return ContainerService(KAFKA_IMAGE, container, lambda: answers_kafka(port)), f"{HOST}:{port}"


def postgres_container() -> tuple[ContainerService, Postgres]:
    """A server that trusts everybody on this machine, not started yet."""
    port = free_port()
    container = _container(POSTGRES_IMAGE, 5432, port)
    container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
    container.with_command(["postgres", "-c", "fsync=off", "-c", "max_connections=200"])
    service = ContainerService(POSTGRES_IMAGE, container, lambda: can_connect(HOST, port))
    return service, Postgres(service, HOST, port)


def redis_container() -> tuple[ContainerService, str]:
    """An empty server and its address, not started yet."""
    port = free_port()
    url = f"redis://{HOST}:{port}/0"
    return ContainerService(REDIS_IMAGE, _container(REDIS_IMAGE, 6379, port), lambda: answers_ping(url)), url


def _container(image: str, inside_port: int, port: int) -> DockerContainer:
    try:
        container = DockerContainer(image)
    except ENGINE_ERRORS as error:
        raise ServiceUnavailable(f"{image} cannot run as a container: {error}") from error
    container.ports[f"{inside_port}/tcp"] = (HOST, port)
    return container
