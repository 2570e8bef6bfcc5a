"""Effects that others carry out, through a worker that is killed while it waits for their answer."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus.admin import apply_topics
from bus.codec import encode
from bus.connection import KafkaConnection
from bus.follow import Follower, follow
from bus.publisher import Publisher
from contracts.events import CancelOrder, Event, TicketSubmitted
from contracts.ports import Position, Settlement
from contracts.ticket import Desk, Ticket
from contracts.topics import OUTCOMES, TICKETS
from ops.broker.server import EmbeddedBroker
from ops.demo.shop import demo_shop
from state.migrate import migrate
from state.pool import open_pool
from state.postgres_tickets import PostgresTickets
from state.shop_files import load_shop
from tests.contract.outlets.shop_server import ShopServer, shop_server
from tests.services.reaper import Reaper
from tests.system.kit import system, until

pytestmark = [pytest.mark.postgres, pytest.mark.system]
ORDER = demo_shop().orders[0]
[CUSTOMER] = [customer for customer in demo_shop().customers if customer.user_id == ORDER.user_id]


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaConnection]:
    broker = EmbeddedBroker(tmp_path / "broker", "127.0.0.1", 0)
    await broker.start()
    connection = KafkaConnection(broker.bootstrap_servers)
    await apply_topics(connection)
    yield connection
    await broker.stop()


async def test_a_worker_that_is_killed_between_the_command_and_its_answer_asks_and_does_not_command_again(
    kafka: KafkaConnection, postgres_dsn: str, reaper: Reaper, tmp_path: Path
) -> None:
    await confirmed(postgres_dsn)
    async with shop_server() as shop, follow(kafka, OUTCOMES.name, from_start=True) as outcomes:
        environment = {
            "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "SWITCHYARD_POSTGRES__DSN": postgres_dsn,
            "SWITCHYARD_EFFECTS__COMMANDS": "webhook",
            "SWITCHYARD_EFFECTS__WEBHOOK__URL": f"http://127.0.0.1:{shop.port}/effects",
            "SWITCHYARD_EFFECTS__WEBHOOK__STATUS_URL": f"http://127.0.0.1:{shop.port}/effects/{{key}}",
            "SWITCHYARD_EFFECTS__WEBHOOK__SECRET": "a secret",
            "SWITCHYARD_EFFECTS__WEBHOOK__TIMEOUT_S": "3",
        }
        async with system(tmp_path, reaper, environment) as running:
            shop.hangs = True
            [first] = await running.start_workers(["effects"])
            await command(kafka)
            await until(lambda: was_asked(shop, 1), "a command to the shop")
            first.kill()
            await first.child.wait()
            shop.hangs = False
            await running.start_workers(["effects"])
            outcome = await next_outcome(outcomes)
    assert shop.methods() == ["POST", "GET"]
    assert outcome["disposition"] == "acted"
    assert outcome["actions"][0]["amount"] == 12.35
    async with open_pool(postgres_dsn, max_size=1) as pool:
        row = await pool.fetchrow("SELECT state, tries FROM effect_attempts")
    assert row is not None
    assert tuple(row) == ("done", 2)


async def confirmed(dsn: str) -> None:
    """Store a ticket whose customer said yes, as reasoning leaves it."""
    said = TicketSubmitted(ticket_id="t-1", from_email=CUSTOMER.email, body="Yes, cancel it.")
    event = Event(id="said", source="urn:test", time=datetime.now(UTC), data=said)
    opened = Ticket(ticket_id="t-1", tenant_id="default").open_round(event)
    waiting = opened.with_round(opened.rounds[0].model_copy(update={"desk": Desk.EFFECTS}))
    await migrate(dsn)
    async with open_pool(dsn, max_size=1) as pool:
        await load_shop(pool, "default", demo_shop())
        stored = Settlement("reasoning", event, Position(TICKETS.name, 0, 0), waiting)
        await PostgresTickets(pool).settle([stored], "test")


async def command(kafka: KafkaConnection) -> None:
    """Publish the command, as reasoning's worker would."""
    cancel = CancelOrder(
        ticket_id="t-1", effect_key="t-1/1/cancel", round=1, order_id=ORDER.order_id, reason="no longer needed"
    )
    record = encode(
        cancel,
        cause=None,
        event_id="e-1",
        time=datetime.now(UTC),
        source="urn:test",
        deadline=None,
        traceparent=None,
    )
    async with Publisher(kafka) as publisher:
        await publisher.publish([record])


async def was_asked(shop: ShopServer, times: int) -> bool:
    return len(shop.asked) >= times


async def next_outcome(follower: Follower) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def came() -> bool:
        found.extend(json.loads(record.value) for record in await follower.next(0.2))
        return bool(found)

    await until(came, "an outcome")
    return found[0]
