"""Which form of each service this run uses: a container where that works, a native process else."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.services.containers import (
    ContainerService,
    an_engine_answers,
    kafka_container,
    postgres_container,
    redis_container,
)
from tests.services.kafka import native_kafka
from tests.services.native import Service, ServiceUnavailable
from tests.services.postgres import Postgres, native_postgres, system_binaries, wheel_binaries
from tests.services.reaper import Reaper
from tests.services.redis import native_redis

Started = TypeVar("Started")


def required() -> bool:
    """Whether a service that cannot be had fails its tests, instead of skipping them."""
    return os.environ.get("CI") == "true" or os.environ.get("SWITCHYARD_REQUIRE_SERVICES") == "1"


def postgres_kinds() -> Sequence[str]:
    """The servers a store must work on: `newest` always, the `system`'s own where its binaries are.

    SWITCHYARD_TEST_POSTGRES=newest or =system asks for one of them.
    """
    if asked := os.environ.get("SWITCHYARD_TEST_POSTGRES"):
        return [asked]
    return ["newest"] if system_binaries() is None else ["newest", "system"]


@dataclass
class Services:
    """Starts services for one run of pytest, tells what it started, and ends them."""

    reaper: Reaper
    story: list[str] = field(default_factory=list)  # one line a service, for the end of the run
    _engine: bool | None = None
    _running: list[Service] = field(default_factory=list)

    def kafka(self) -> tuple[Service, str]:
        """A started Apache Kafka and its bootstrap address."""
        return self._started(
            "Apache Kafka",
            kafka_container,
            lambda: native_kafka(self.reaper, may_install=required()),
            service_of=lambda pair: pair[0],
        )

    def postgres(self, kind: str) -> Postgres:
        """A started PostgreSQL: the newest to be had, or the system's own."""
        if kind == "system":
            binaries = system_binaries()
            if binaries is None:
                raise ServiceUnavailable("this machine has no PostgreSQL server binaries of its own")
            return self._start(f"PostgreSQL ({binaries})", native_postgres(binaries, self.reaper), _of_postgres)
        return self._started(
            "PostgreSQL",
            postgres_container,
            lambda: native_postgres(wheel_binaries(), self.reaper),
            service_of=_of_postgres,
        )

    def redis(self) -> tuple[Service, str]:
        """A started Redis or Valkey and its address."""
        return self._started(
            "Redis", redis_container, lambda: native_redis(self.reaper), service_of=lambda pair: pair[0]
        )

    def close(self) -> None:
        """End everything that was started."""
        for service in self._running:
            if isinstance(service, ContainerService):
                service.remove()
            else:
                service.stop()

    def _started(
        self,
        name: str,
        as_container: Callable[[], Started],
        natively: Callable[[], Started],
        service_of: Callable[[Started], Service],
    ) -> Started:
        if self._engine is None:
            self._engine = an_engine_answers()
        if self._engine:
            try:
                return self._start(f"{name} (container)", as_container(), service_of)
            except ServiceUnavailable as error:
                self.story.append(f"{name}: {str(error).splitlines()[0]}; runs natively instead")
        return self._start(f"{name} (native)", natively(), service_of)

    def _start(self, name: str, made: Started, service_of: Callable[[Started], Service]) -> Started:
        service = service_of(made)
        self._running.append(service)
        began = time.monotonic()
        service.start()
        self.story.append(f"{name}: up in {time.monotonic() - began:.1f} s")
        return made


def _of_postgres(postgres: Postgres) -> Service:
    return postgres.service
