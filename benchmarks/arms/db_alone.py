"""What the database alone can take: the step's rows, `batch` steps a statement, no Kafka and no handler."""

import asyncio
import itertools

import asyncpg

from benchmarks.cluster import ticket_value
from benchmarks.job import Job
from benchmarks.ledger import Ledger
from benchmarks.step_sql import MANY_STEPS, ONE_STATEMENT

_TICKETS = 1_000


async def run(job: Job, ledger: Ledger) -> None:
    """Settle steps on some connections at once until the slice is over."""
    connections = int(job.options["connections"])
    async with asyncpg.create_pool(job.dsn, min_size=connections, max_size=connections) as pool:
        await asyncio.gather(*(_settle(pool, job, ledger, number, connections) for number in range(connections)))


async def _settle(pool: asyncpg.Pool, job: Job, ledger: Ledger, number: int, of: int) -> None:
    """Each connection has tickets of its own, so that none waits for another's row."""
    batch = int(job.options["batch"])
    tickets = itertools.cycle([f"t-{n}" for n in range(number, _TICKETS, of)])
    versions: dict[str, int] = {}
    value = ticket_value("t-0")
    async with pool.acquire() as connection:
        for first in itertools.count(0, batch):
            if ledger.over.is_set():
                return
            names = list(itertools.islice(tickets, batch))
            steps = [
                (f"{number}:{first + at}", name, versions.get(name, 0), value.decode(), value)
                for at, name in enumerate(names)
            ]
            if batch == 1:
                event_id, name, version, state, _ = steps[0]
                await connection.fetch(ONE_STATEMENT, job.group, event_id, name, version, state, "out", value)
            else:
                events, _, at_versions, states, values = map(list, zip(*steps, strict=True))
                await connection.fetch(MANY_STEPS, job.group, events, names, at_versions, states, "out", values)
            versions.update((name, versions.get(name, 0) + 1) for name in names)
            ledger.handled += batch
