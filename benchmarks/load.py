"""Open-loop load: records go out when they are meant to, whether or not anybody keeps up, and are timed from then."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.cluster import PARTITIONS, Keys, event_headers, event_id_of, now, ticket_value
from benchmarks.patience import until


@dataclass(frozen=True, slots=True)
class Due:
    """A record that is to go out."""

    at_s: float  # from the start of the load
    ticket: int
    tenant: str = "default"


@dataclass(slots=True)
class Load:
    """Sends to one topic, and notes when each event that another topic tells of was seen.

    Event ids say where the record stands; a load has its topic to itself.
    """

    bootstrap: str
    topic: str
    seen_on: str
    seen_header: str = "ce_causationid"  # which header of what is seen names the event
    intended: dict[str, float] = field(default_factory=dict)  # by event id, on the monotonic clock
    tenant_of: dict[str, str] = field(default_factory=dict)
    ticket_of: dict[str, str] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    _keys: Keys = field(default_factory=Keys)
    _next: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    async def send(self, producer: AIOKafkaProducer, due: Due, intended: float) -> None:
        """Send one record."""
        name = f"t-{due.ticket}" if due.tenant == "default" else f"{due.tenant}-{due.ticket}"
        partition = self._keys.partition_of(name.encode())
        event_id = event_id_of(partition, self._next[partition])
        self._next[partition] += 1
        self.intended[event_id] = intended
        self.tenant_of[event_id] = due.tenant
        self.ticket_of[event_id] = name
        value = ticket_value(name, due.tenant)
        headers = event_headers(event_id, now())
        await producer.send(self.topic, value, key=name.encode(), partition=partition, headers=headers)

    async def run(self, producer: AIOKafkaProducer, schedule: Iterable[Due]) -> None:
        """Send a schedule to its end."""
        began = time.monotonic()
        for due in schedule:
            intended = began + due.at_s
            if (wait_s := intended - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            await self.send(producer, due, intended)

    async def watch(self, client: AIOKafkaConsumer) -> None:
        """Note what is seen, until cancelled."""
        while True:
            for records in (await client.getmany(timeout_ms=100)).values():
                at = time.monotonic()
                for record in records:
                    event_id = next(value for name, value in record.headers if name == self.seen_header)
                    self.seen.setdefault(event_id.decode(), at)

    async def until_seen(self, *, within_s: float) -> None:
        """Wait until all that was sent is seen, or time is over."""
        with suppress(TimeoutError):
            await until(lambda: len(self.seen) >= len(self.intended), within_s=within_s)

    def latencies_ms(self, *, since: float = 0.0, tenant: str | None = None) -> list[float]:
        """Of what was meant to go out at or after a moment, from when it was meant to, to when it was seen.

        What was never seen counts as seen now.
        """
        end = time.monotonic()
        return [
            (self.seen.get(event_id, end) - intended) * 1e3
            for event_id, intended in self.intended.items()
            if intended >= since and tenant in (None, self.tenant_of[event_id])
        ]


@asynccontextmanager
async def loading(load: Load) -> AsyncIterator[AIOKafkaProducer]:
    """A producer for the load, while what comes back is watched."""
    producer = AIOKafkaProducer(bootstrap_servers=load.bootstrap, enable_idempotence=True, linger_ms=0)
    client = AIOKafkaConsumer(bootstrap_servers=load.bootstrap)
    await producer.start()
    await client.start()
    try:
        client.assign([TopicPartition(load.seen_on, number) for number in range(PARTITIONS)])
        await client.seek_to_end()
        watching = asyncio.create_task(load.watch(client))
        yield producer
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    finally:
        await client.stop()
        await producer.stop()


def steadily(rate: float, for_s: float, *, tickets: int, tenant: str = "default") -> list[Due]:
    """So many records a second, evenly, the tickets taking turns."""
    return [Due(number / rate, number % tickets, tenant) for number in range(int(rate * for_s))]
