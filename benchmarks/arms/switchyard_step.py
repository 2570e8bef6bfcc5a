"""Our worker with a small agent: consume, decide, settle in PostgreSQL, publish, commit."""

import asyncio
import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.arms.failing import Failing
from benchmarks.arms.plain import until_over
from benchmarks.job import Job
from benchmarks.ledger import Ledger
from bus.connection import KafkaConnection
from bus.consumer import Worker
from bus.options import WorkerOptions
from contracts.events import Event, LookupRequested, TicketSubmitted
from contracts.ticket import Step, Ticket
from contracts.topics import Topic
from ops.running import collect_garbage_seldom
from state.pool import open_pool
from state.stores import postgres_stores

CONNECTIONS = 10  # as the settings have it where nobody says otherwise


class Taken(NamedTuple):
    """The record behind an event, as the ledger wants it."""

    key: bytes
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Stepping:
    """Writes the event's id into the ticket's first round and emits one event."""

    name: str
    ledger: Ledger
    failing: Failing | None = None
    version: str = "benchmark"

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Decide as fast as an agent can, after the wait that the slice asks for."""
        if self.failing:
            self.failing.try_again(event.id)
        partition, _, offset = event.id.partition(":")
        await self.ledger.handle(Taken(event.ticket_id.encode(), int(partition), int(offset)))
        opened = ticket if ticket.rounds else ticket.open_round(event)
        changed = opened.with_round(opened.rounds[0].model_copy(update={"event_id": event.id}))
        return Step(changed, (LookupRequested(ticket_id=event.ticket_id, tenant_id=event.tenant_id, round=1),))


async def run(job: Job, ledger: Ledger) -> None:
    """Work until the slice is over."""
    collect_garbage_seldom()  # as `switchyard run` does
    topic = Topic(job.topic, (TicketSubmitted,), read_by=(job.group,))
    failing = Failing(float(job.options["failing"])) if "failing" in job.options else None
    options = WorkerOptions(lanes=job.concurrency, session_timeout_s=job.session_timeout_s, **_parking(failing))
    async with open_pool(job.dsn, max_size=CONNECTIONS) as pool:
        stores = postgres_stores(pool)
        if failing:
            stores = dataclasses.replace(stores, parking=failing.parking.around(stores.parking))
        worker = Worker(
            Stepping(job.group, ledger, failing),
            stores,
            KafkaConnection(job.bootstrap),
            topic=topic,
            options=options,
        )
        work = asyncio.create_task(worker.run())
        await until_over(ledger, work)
        worker.stop()
        await work
    if failing:
        ledger.figures.update(failing.figures())


def _parking(failing: Failing | None) -> dict[str, Any]:
    """Where handlers fail, every retry parks: that is what is measured, and the handlers name the waits."""
    return {"retry_delays_s": (0.01,) * 3, "longest_wait_in_place_s": 0.0} if failing else {}
