"""A way to Kafka through a proxy, for one client: late, silent, or with answers that are lost or falsified."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from bus.connection import KafkaConnection
from tests.drill.proxy import Proxy, proxying
from tests.drill.taps import Asked, KafkaMischief, KafkaTap


@dataclass
class AddressTap(KafkaTap):
    """Writes the proxy's port where answers name the broker's: a client goes where they send it."""

    broker: bytes = b""
    proxy: bytes = b""
    topic: Callable[[], bytes] = bytes  # requests that do not name it are left alone

    def asked(self, data: bytes) -> None:
        """Note which requests go out; those that are to be left alone under no name."""
        before = set(self._asked)
        super().asked(data)
        if self.topic() not in data:
            self._asked |= dict.fromkeys(self._asked.keys() - before, Asked(-1, 0))

    def answered(self, data: bytes) -> bytes | None:
        """Whole answers, with the proxy's address."""
        through = super().answered(data)
        return None if through is None else through.replace(self.broker, self.proxy)


@dataclass
class KafkaWay:
    """The proxy and what its answers do."""

    proxy: Proxy
    mischief: KafkaMischief = field(default_factory=KafkaMischief)
    topic: str = ""  # the one whose requests are meddled with; empty: all

    @property
    def connection(self) -> KafkaConnection:
        """Kafka as it is reached through the proxy."""
        return KafkaConnection(f"{self.proxy.host}:{self.proxy.listen}")

    def meddle(self, api_key: int, error: int | None, *, spared: int = 0, times: int = 1, topic: str = "") -> None:
        """Lose the next answers to such requests, with their connections, or have them name an error."""
        self.mischief.spared = spared
        self.topic = topic
        self.mischief.api_keys = frozenset({api_key})
        self.mischief.error = error
        self.mischief.left = times


@contextlib.asynccontextmanager
async def way_to(bootstrap: str) -> AsyncIterator[KafkaWay]:
    """A proxy before the broker at this address."""
    host, port = bootstrap.split(":")
    way = KafkaWay(Proxy(host, int(port)))
    async with proxying(way.proxy):
        broker, proxy = (host.encode() + number.to_bytes(4, "big") for number in (int(port), way.proxy.listen))
        way.proxy.new_tap = lambda: AddressTap(
            way.mischief, broker=broker, proxy=proxy, topic=lambda: way.topic.encode()
        )
        yield way
