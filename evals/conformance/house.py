"""A worker in memory: the engine's own parts around an agent, without Kafka and without a database."""

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from bus.admission import Admission
from bus.codec import Codec, encode
from bus.connection import KafkaConnection
from bus.dead_letters import DeadLetters
from bus.delivery import Delivery, size_of
from bus.engine import Engine
from bus.finishing import Finishing
from bus.options import WorkerOptions
from bus.parking import Scheduler
from bus.pipeline import pipeline
from bus.publisher import Publisher, Sent
from bus.relay import Relay
from bus.settling import Settling
from contracts.events import Event
from contracts.ports import Agent, ChatModel, OutgoingRecord, Position, Record, Settled, Settlement, Stored, TicketStore
from contracts.ticket import Ticket
from evals.conformance.scene import NotConforming, Scene, World, shop_of
from evals.conformance.waiting import until
from state.effects import MemoryEffects
from state.policy_search import HybridSearch
from state.stores import memory_stores

_LIMIT_S = 60.0  # for one life; far more than it takes
_LEASES_OVER_S = 120.0  # what passes between two lives: nobody's lease lasts so long
_OPTIONS = WorkerOptions(lanes=64, retry_delays_s=(0.0, 0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True, slots=True)
class End:
    """What is left when everything is handled, as JSON values that can be compared."""

    tickets: dict[str, Any]
    emitted: dict[str, list[tuple[str, str, Any]]]  # event id, type and value, by ticket and topic
    effects: dict[str, list[Any]]  # of each ticket
    orders: dict[str, Any]
    dead_letters: list[str]  # classes of the errors


@dataclass
class Bus:
    """Takes what is published, and dead letters."""

    published: dict[str, OutgoingRecord] = field(default_factory=dict)
    dead_letters: list[str] = field(default_factory=list)

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> list[Sent]:
        """Publish; a second copy has the event id of the first."""
        for record in records:
            self.published.setdefault(record.event_id, record)
        return [Position(record.topic, 0, 0) for record in records]

    def stripe(self, topic: str, ticket_id: str) -> int | None:
        """All are one stream."""
        return 0

    async def put(self, topic: str, *, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Position:
        """Take a dead letter."""
        self.dead_letters.append(dict(headers)["kafka_dlt-exception-fqcn"].decode())
        return Position(topic, 0, 0)


class House:
    """What outlives a worker: stores, the shop, its effects, and the bus."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.shop = scene.new_shop()
        self.effects = MemoryEffects(self.shop)
        self.bus = Bus()
        self.settled: set[str] = set()  # ids of events whose step is stored
        self.stored: set[str] = set()  # ids of events to be published
        self._now_s = 0.0
        self.stores = memory_stores(lambda: self._now_s)

    async def prepare(self) -> None:
        """Store the tickets that are there before the events."""
        for ticket in self.scene.tickets:
            await self.change(ticket, "before")

    def world(self, model: ChatModel | None = None) -> World:
        """The ports as they are; another model than the honest one where it is given."""
        policy = HybridSearch(self.shop.policies, shop_of)
        return World(model or self.scene.model, self.shop, policy, self.effects)

    async def change(self, ticket: Ticket, why: str) -> None:
        """Store a ticket as somebody else leaves it."""
        event = Event(
            f"{why}/{ticket.ticket_id}", "urn:conformance", self.scene.events[0].time, self.scene.events[0].data
        )
        settlement = Settlement("conformance", event, Position(self.scene.inbox.name, 0, 0), ticket)
        [result] = await self.stores.tickets.settle([settlement], "conformance")
        assert isinstance(result, Stored), result

    async def live(
        self, agent: Agent, tickets: TicketStore, events: Sequence[Event], crashed: asyncio.Event | None = None
    ) -> bool:
        """Run a worker until all is handled and published, or until `crashed` is set: then False, with no farewell."""
        life = _Life(self, agent, tickets, events)
        running = asyncio.create_task(life.run())
        crash = asyncio.create_task((crashed or asyncio.Event()).wait())
        await asyncio.wait({running, crash}, timeout=_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        has_ended = running.done()
        running.cancel()
        crash.cancel()
        await asyncio.wait({running, crash})
        self._now_s += _LEASES_OVER_S
        if has_ended:
            running.result()
        elif crashed is None or not crashed.is_set():
            raise NotConforming(f"a worker does not come to an end: {len(self.settled)} events are settled")
        return has_ended

    def note(self, settlements: Sequence[Settlement], results: Sequence[Settled]) -> None:
        """Note what was stored."""
        for settlement, result in zip(settlements, results, strict=True):
            if isinstance(result, Stored):
                self.settled.add(settlement.event.id)
                self.stored.update(record.event_id for record in settlement.outgoing)

    async def end(self) -> End:
        """What there is now."""
        ids = self.scene.ticket_ids
        loaded = [await self.stores.tickets.load(ticket_id) for ticket_id in ids]
        emitted = defaultdict(list)
        for record in self.bus.published.values():
            value = json.loads(record.value)
            emitted[f"{record.ticket_id} on {record.topic}"].append((record.event_id, record.type, value))
        tenant = self.scene.events[0].tenant_id
        rows = [await self.shop.order(tenant, order.order_id) for order in self.scene.export.orders]
        return End(
            tickets={ticket.ticket_id: ticket.model_dump(mode="json") for ticket in loaded if ticket},
            emitted=dict(emitted),
            effects={one: [dict(entry.detail) for entry in self.effects.entries_of(one)] for one in ids},
            orders={row.order_id: row.model_dump(mode="json") for row in rows if row},
            dead_letters=sorted(self.bus.dead_letters),
        )


class Noting:
    """A TicketStore that tells the house what it stored."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._tickets = house.stores.tickets
        self.load, self.look_up, self.overdue = self._tickets.load, self._tickets.look_up, self._tickets.overdue

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        """Store, and tell."""
        results = await self._tickets.settle(settlements, owner)
        self._house.note(settlements, results)
        return results


class _Fed(Engine):
    """An engine whose records are all there, and which ends when there is nothing left to do."""

    def __init__(self, records: Sequence[Record], is_done: Callable[[], Awaitable[bool]], **settings: Any) -> None:
        super().__init__(**settings)
        self._records = records
        self._is_done = is_done

    async def _keep_membership(self) -> None:
        assignment = self.frontiers.of(0, 0)
        self.take([_delivery(record, assignment) for record in self._records])

        async def nothing_is_left() -> bool:
            return assignment.frontier() == len(self._records) and await self._is_done()

        await until(nothing_is_left)


class _Life:
    """One worker, from its start to its end. What `bus.consumer.Worker` puts together, without Kafka."""

    _admission: Admission
    _finishing: Finishing

    def __init__(self, house: House, agent: Agent, tickets: TicketStore, events: Sequence[Event]) -> None:
        self._house = house
        self._group = group = agent.name
        owner, topic, stores = str(uuid.uuid4()), house.scene.inbox, house.stores
        self._failures: list[BaseException] = []
        self._relay = Relay(stores.outbox, stores.leases, house.bus, owner, sweep_s=0.02, mark_s=0.0)
        self._settling = Settling(tickets, lambda: self._relay.owner, self._stored, failed=self._failures.append)
        self._engine = _Fed(
            [_record(event, offset) for offset, event in enumerate(events)],
            self._is_done,
            handle=pipeline(agent, tickets, _OPTIONS, self._handled_in_lane),
            connection=KafkaConnection("memory:0"),
            topic=topic.name,
            group=group,
            options=_OPTIONS,
            admit=lambda deliveries: self._admission.put(deliveries),
            finish=lambda delivery, outcome: self._finishing.finish(delivery, outcome),
        )
        self._scheduler = Scheduler(stores.parking, stores.leases, group, owner, self._resume, poll_s=0.01)
        self._admission = Admission(
            topic,
            group,
            Codec(timedelta(days=1)),
            tickets,
            stores.parking,
            offer=self._engine.offer,
            settled=lambda delivery: self._finishing.settled_unrun(delivery),
            has_lane=lambda ticket_id: self._engine.lanes.get(ticket_id) is not None,
            is_leaving=lambda ticket_id: self._finishing.is_leaving(ticket_id),
        )
        self._finishing = Finishing(
            group,
            self._engine,
            self._admission,
            self._settling,
            self._relay,
            stores.parking,
            self._scheduler,
            DeadLetters(group, cast(Publisher, house.bus)),
            retry_delays_s=_OPTIONS.retry_delays_s,
            failed=self._failures.append,
        )

    async def run(self) -> None:
        """Handle everything."""
        async with asyncio.TaskGroup() as tasks:
            parts = (self._relay.run(), self._admission.run(), self._scheduler.run())
            background = [tasks.create_task(part) for part in parts]
            try:
                await self._engine.run()
                await self._relay.drained(_LIMIT_S)
            finally:  # after a crash too: what still runs must not outlive this life
                await self._settling.cancel()
                await self._finishing.cancel()
                for task in background:
                    task.cancel()

    async def _is_done(self) -> bool:
        if self._failures:
            raise self._failures[0]
        waiting = await self._house.stores.parking.due(self._group, within_s=1e9, limit=1)
        return not waiting and self._house.stored <= self._house.bus.published.keys()

    def _stored(self, *what: Any) -> None:
        self._finishing.stored(*what)

    def _resume(self, parked: Any) -> None:
        delivery = Delivery(parked.record, parked.ticket_id)
        delivery.parked, delivery.attempts = parked, parked.attempts
        self._admission.put([delivery])

    def _handled_in_lane(self, delivery: Delivery) -> bool:
        lane = self._engine.lanes.get(delivery.key)
        return lane is not None and lane.handled is not None and delivery.event.id in lane.handled


def _delivery(record: Record, assignment: Any) -> Delivery:
    size = size_of(record)
    return Delivery(record, record.key, assignment, assignment.begin(record.offset, size), size)


def _record(event: Event, offset: int) -> Record:
    made = encode(
        event.data,
        cause=None,
        event_id=event.id,
        time=event.time,
        source=event.source,
        deadline=event.deadline,
        traceparent=event.traceparent,
    )
    written_at = int(event.time.timestamp() * 1000)
    return Record(made.topic, 0, offset, written_at, made.ticket_id.encode(), made.value, made.headers)
