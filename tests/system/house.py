"""A running system, seen from outside: the fixture `house` of the system tests."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from bus.connection import KafkaConnection
from bus.follow import Follower, follow
from contracts.topics import OUTCOMES, TICKETS
from evals.support_cases import Case, read_cases
from ops.demo.shop import demo_shop
from ops.demo.tickets import sample_tickets
from state.migrate import migrate
from state.pool import open_pool
from state.shop_files import load_shop, read_export
from tests.services.reaper import Reaper
from tests.system.kit import System, system, until, with_fresh_topics

SHARED = Path(os.environ.get("SWITCHYARD_SHARED") or Path(__file__).parents[3] / "shared")


@dataclass
class House:
    """A running system, seen from outside: a bare producer, a reader of outcomes, and the database."""

    system: System
    connection: KafkaConnection
    producer: AIOKafkaProducer
    outcomes: Follower
    pool: asyncpg.Pool

    def __post_init__(self) -> None:
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self._event_ids: set[str] = set()

    async def publish(self, *records: tuple[str | None, bytes]) -> None:
        """Publish values without headers, under their keys."""
        for key, value in records:
            await self.producer.send(TICKETS.name, key=key.encode() if key else None, value=value)
        await self.producer.flush()

    async def publish_tickets(self, *tickets: dict[str, Any]) -> None:
        """Publish tickets as any producer would."""
        await self.publish(*((str(t["ticket_id"]), json.dumps(t).encode()) for t in tickets))

    async def read_outcomes(self) -> None:
        """Take in what came on the outcomes topic; an event delivered again counts once."""
        for record in await self.outcomes.next(0.1):
            event_id = dict(record.headers)["ce_id"].decode()
            if event_id not in self._event_ids:
                self._event_ids.add(event_id)
                outcome = json.loads(record.value) | {"type": dict(record.headers)["ce_type"].decode()}
                self.seen.setdefault(outcome["ticket_id"], []).append(outcome)

    async def until_outcomes(self, count: int, limit_s: float = 120) -> None:
        """Return once that many outcomes came in all."""

        async def all_came() -> bool:
            await self.read_outcomes()
            return sum(map(len, self.seen.values())) >= count

        await until(all_came, f"{count} outcomes", limit_s)

    async def until_at_rest(self, limit_s: float = 90) -> None:
        """Return once every stored record is published and every command on the effects topic carried out."""

        async def at_rest() -> bool:
            await self.read_outcomes()
            emitted, carried_out, waiting = await self.pool.fetchrow(
                "SELECT (SELECT count(*) FROM emitted WHERE topic = 'support.effects.v1'),"
                " (SELECT count(*) FROM inbox WHERE group_name = 'effects'),"
                " (SELECT count(*) FROM outbox)"
            )
            return emitted == carried_out and waiting == 0

        await until(at_rest, "a system at rest", limit_s)


@pytest.fixture
async def house(
    kafka_bootstrap: str, postgres_dsn: str, redis_url: str, reaper: Reaper, tmp_path: Path
) -> AsyncIterator[House]:
    """A house on the services of this run."""
    async with open_house(kafka_bootstrap, postgres_dsn, redis_url, reaper, tmp_path) as opened:
        yield opened


@contextlib.asynccontextmanager
async def open_house(
    kafka_bootstrap: str, postgres_dsn: str, redis_url: str, reaper: Reaper, folder: Path
) -> AsyncIterator[House]:
    """Topics, tables, the demo shop and the stand-in are there; whoever opens it starts the workers they want."""
    connection = KafkaConnection(bootstrap_servers=kafka_bootstrap)
    services = {
        "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap,
        "SWITCHYARD_POSTGRES__DSN": postgres_dsn,
        "SWITCHYARD_REDIS__URL": redis_url,
    }
    await asyncio.gather(with_fresh_topics(connection), migrate(postgres_dsn))
    async with open_pool(postgres_dsn, max_size=2) as pool, system(folder, reaper, services) as started:
        await load_shop(pool, "default", demo_shop())
        await started.start_standin(latency_ms=50)
        async with (
            follow(connection, OUTCOMES.name, from_start=True) as outcomes,
            AIOKafkaProducer(**connection.client_options(), acks="all", max_request_size=4 << 20) as producer,
        ):
            yield House(started, connection, producer, outcomes, pool)


async def support_cases(house: House) -> list[Case]:
    """The shared support cases on their shop; the demo's own tickets, several times over, where they are not."""
    if SHARED.is_dir():
        await load_shop(house.pool, "default", read_export(SHARED / "data" / "retail_db"))
        return read_cases(SHARED / "data" / "support_cases" / "dev.jsonl")
    copies = [t.first | {"ticket_id": f"{t.first['ticket_id']}-{n}"} for t in sample_tickets() for n in range(6)]
    return [Case(str(ticket["ticket_id"]), "demo", ticket, {}) for ticket in copies]
