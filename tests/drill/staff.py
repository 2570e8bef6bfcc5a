"""What works inside a drill's worker: two scripted agents, a model that is paid, and ports that keep ledgers.

Every line is written when the port has answered and before the engine hears of it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop
from pydantic import BaseModel

from bus.connection import KafkaConnection
from bus.consumer import Worker
from bus.options import WorkerOptions
from contracts.errors import ContractBroken, ModelUnavailable
from contracts.events import CustomerReplied, Event, SendReply, TicketSubmitted
from contracts.model_ports import Entry, Hold, ModelCalls, ProviderCall
from contracts.models import CallContext, ModelCall, ModelRequest, Reuse
from contracts.ports import (
    Agent,
    ChatModel,
    EffectsPort,
    Journal,
    Known,
    Outbox,
    Parking,
    Published,
    Record,
    Settled,
    Settlement,
    Stored,
    StoredRecord,
    Stores,
    TicketStore,
    Wanted,
)
from contracts.ticket import Signature, Step, Ticket, close
from contracts.topics import EFFECTS, Topic
from contracts.values import Disposition, Tier
from llm.provider import Completion, Key, Prompt, Target
from ops.models import gateway_over, shared_in
from ops.settings import LlmSettings, ModelPrice
from state.effects import PostgresEffects
from state.pool import open_pool
from state.redis_calls import RedisCalls
from state.stores import postgres_stores
from tests.drill.hooks import AFTER_MODEL, AFTER_SETTLE, BEFORE_MARK, BEFORE_MODEL, IN_HANDLER, Hooks
from tests.drill.ledger import Ledger, true_time
from tests.drill.script import Script, answer_to, reply_to
from tests.drill.station import Station

STEP = "answer"


@dataclass(frozen=True, slots=True)
class Config(Station):
    """One worker, as the drill's file describes it."""

    worker: str
    skew_s: float = 0.0
    drain_timeout_s: float = 5.0


@dataclass
class Eyes:
    """What a worker's ports write down, and what they remember between two lines."""

    group: str
    ledger: Ledger
    hooks: Hooks
    looked_up: dict[str, float] = field(default_factory=dict)  # event id: when its last look-up was asked for
    recalled: dict[str, float] = field(default_factory=dict)  # event id: when its journal was asked for

    def note(self, what: str, **detail: Any) -> None:
        """Write a line."""
        self.ledger.note(what, group=self.group, **detail)


# --- ports that keep ledgers -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeenTickets:
    """TicketStore whose answers are written down."""

    inner: TicketStore
    eyes: Eyes

    async def load(self, ticket_id: str) -> Ticket | None:
        return await self.inner.load(ticket_id)

    async def overdue(self, *, grace_s: float, limit: int) -> Sequence[Ticket]:
        return await self.inner.overdue(grace_s=grace_s, limit=limit)

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        asked_at = true_time()
        known = await self.inner.look_up(group, wanted)
        self.eyes.looked_up.update(dict.fromkeys((one.event_id for one in wanted), asked_at))
        if known.handled:
            self.eyes.note("handled", events=sorted(known.handled))
        return known

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        results = await self.inner.settle(settlements, owner)
        answered = list(zip(settlements, results, strict=True))
        done = [s.event.id for s, result in answered if _is_settled(result)]
        emitted = [r.event_id for s, result in answered if isinstance(result, Stored) for r in s.outgoing]
        if done:
            self.eyes.note("settled", events=done, emitted=emitted)
            self.eyes.hooks.passed(AFTER_SETTLE)
        return results


def _is_settled(result: Settled) -> bool:
    return result is None or isinstance(result, Stored)


@dataclass(frozen=True, slots=True)
class SeenOutbox:
    """Outbox with the hook between publishing and marking."""

    inner: Outbox
    eyes: Eyes

    async def mark_published(self, published: Sequence[Published]) -> None:
        if published:
            self.eyes.hooks.passed(BEFORE_MARK)
        await self.inner.mark_published(published)

    async def take_over(self, owner: str, *, limit: int) -> Sequence[StoredRecord]:
        taken = await self.inner.take_over(owner, limit=limit)
        if taken:
            self.eyes.note("took over", events=[row.record.event_id for row in taken])
        return taken


@dataclass(frozen=True, slots=True)
class SeenParking:
    """Parking whose answers are written down; all else passes through."""

    inner: Parking
    eyes: Eyes

    async def park(self, group: str, ticket_id: str, record: Record, **how: Any) -> None:
        await self.inner.park(group, ticket_id, record, **how)
        self.eyes.note("parked", ticket=ticket_id, places=[_place(record)], wait_s=how["wait_s"])

    async def block(self, group: str, ticket_id: str, record: Record, **how: Any) -> None:
        await self.inner.block(group, ticket_id, record, **how)
        self.eyes.note("blocked", ticket=ticket_id, places=[_place(record)])

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        queued = await self.inner.queue(group, followers)
        places = [_place(record) for (_, record), is_queued in zip(followers, queued, strict=True) if is_queued]
        if places:
            self.eyes.note("queued", places=places)
        return queued

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _place(record: Record) -> list[Any]:
    return [record.topic, record.partition, record.offset]


@dataclass(frozen=True, slots=True)
class SeenJournal:
    """Journal whose looks are written down."""

    inner: Journal
    eyes: Eyes

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        self.eyes.recalled[event_id] = true_time()
        return await self.inner.recall(event_id, step, request_digest)


@dataclass(frozen=True, slots=True)
class SeenBook:
    """ModelCalls whose answers, in the journal from then on, are written down."""

    inner: ModelCalls
    eyes: Eyes

    async def open(self, call: ProviderCall, hold: Hold) -> None:
        await self.inner.open(call, hold)

    async def finish(self, call: ProviderCall, made: ModelCall, answer: Entry | None) -> None:
        await self.inner.finish(call, made, answer)
        if answer is not None:
            self.eyes.note("kept", event=call.context.event_id)

    async def drop(self, call_id: str) -> None:
        await self.inner.drop(call_id)


@dataclass(frozen=True, slots=True)
class PaidProvider:
    """A model that writes down what it is paid for, then answers."""

    eyes: Eyes

    async def complete(self, prompt: Prompt) -> Completion:
        self.eyes.hooks.passed(BEFORE_MODEL)
        event_id = prompt.call.event_id
        self.eyes.note("paid", event=event_id, recalled_at=self.eyes.recalled.get(event_id))
        await asyncio.sleep(0.01)
        text = Answer(text=answer_to(prompt.request.content)).model_dump_json()
        return Completion(text=text, call_id=f"{os.getpid()}-{true_time()}", model="m", input_tokens=9, output_tokens=9)


# --- agents ------------------------------------------------------------------------------------------------


class Answer(BaseModel):
    """What the model is asked for."""

    text: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Answers each message with what the model says; fails where the message tells it to."""

    name: str
    model: ChatModel
    eyes: Eyes
    tries: Path  # one file an event, one byte a try, whoever tries
    version: str = "drill"

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        if not isinstance(event.data, TicketSubmitted | CustomerReplied):
            return Step(ticket)
        script = Script.of(event.data.body)
        self.eyes.note("began", event=event.id, looked_up_at=self.eyes.looked_up.get(event.id))
        self.eyes.hooks.passed(IN_HANDLER)
        await asyncio.sleep(script.wait_s)
        if script.cursed:
            raise ContractBroken("cursed")
        if script.fails and _one_more(self.tries / event.id) <= script.fails:
            raise ModelUnavailable("not yet")
        answer = await self.model.ask(
            ModelRequest(
                Tier.FAST, "drill", script.question, Answer, reuse=Reuse.TENANT if script.cacheable else Reuse.NEVER
            ),
            CallContext(ticket.ticket_id, ticket.tenant_id, event.id, self.name, STEP, event.deadline),
        )
        self.eyes.hooks.passed(AFTER_MODEL)
        opened = ticket.open_round(event)
        by, reply = Signature(self.name, self.version), f"{event.id} {answer.value.text}"
        return close(opened, opened.rounds[-1], Disposition.ANSWERED, by, reply=reply, calls=answer.calls)


def _one_more(file: Path) -> int:
    """Count this try among those of all workers."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, b".")
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Carrier:
    """Carries replies out: to the effects table under their key, and to the ledger each time it tries."""

    name: str
    port: EffectsPort
    eyes: Eyes
    version: str = "drill"

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        command = event.data
        if not isinstance(command, SendReply):
            return Step(ticket)
        self.eyes.note("began", event=event.id, looked_up_at=self.eyes.looked_up.get(event.id))
        self.eyes.hooks.passed(IN_HANDLER)
        await self.port.send(command)
        self.eyes.note(
            "effect",
            event=event.id,
            key=command.effect_key,
            ticket=command.ticket_id,
            round=command.round,
            text=command.text,
        )
        self.eyes.hooks.passed(AFTER_MODEL)
        return Step(ticket)


# --- the whole ---------------------------------------------------------------------------------------------


def run(config: Config) -> None:
    """Run a worker until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    uvloop.run(_work(config))


async def _work(config: Config) -> None:
    folder = Path(config.folder)
    ledger = Ledger(folder / f"{config.worker}.ledger")
    eyes = Eyes(config.group, ledger, Hooks(folder, config.worker))
    async with contextlib.AsyncExitStack() as open_until_stop:
        pool = await open_until_stop.enter_async_context(open_pool(config.dsn, max_size=6))
        stores = _seen(postgres_stores(pool), eyes)
        agent = await _agent(config, pool, eyes, open_until_stop)
        topic = Topic(config.topic, (TicketSubmitted, CustomerReplied), bare_json=True)
        worker = Worker(
            agent,
            stores,
            KafkaConnection(config.bootstrap),
            topic=EFFECTS if config.kind == "carrier" else topic,
            options=_options(config),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        running = asyncio.create_task(worker.run())
        started = asyncio.create_task(worker.started.wait())
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        ledger.note("ready", worker=config.worker)
        await running
    ledger.note("ended", worker=config.worker)


def _options(config: Config) -> WorkerOptions:
    return WorkerOptions(
        lanes=config.lanes,
        commit_interval_s=0.2,
        drain_timeout_s=config.drain_timeout_s,
        session_timeout_s=3.0,
        retry_delays_s=(0.05, 0.1, 1.0, 1.0),
        longest_wait_in_place_s=0.3,
    )


def _seen(stores: Stores, eyes: Eyes) -> Stores:
    return replace(
        stores,
        tickets=SeenTickets(stores.tickets, eyes),
        outbox=SeenOutbox(stores.outbox, eyes),
        parking=SeenParking(stores.parking, eyes),
    )


async def _agent(config: Config, pool: Any, eyes: Eyes, open_until_stop: contextlib.AsyncExitStack) -> Agent:
    if config.kind == "carrier":
        return Carrier(config.group, PostgresEffects(pool, lambda tenant: tenant), eyes)
    settings = LlmSettings(prices={"drill:m": ModelPrice(input=1, output=1)})
    redis = await open_until_stop.enter_async_context(RedisCalls.open(config.redis_url))
    shared = shared_in(pool, redis, settings)
    seen = replace(shared, journal=SeenJournal(shared.journal, eyes), book=SeenBook(shared.book, eyes))
    model = gateway_over({Tier.FAST: [Target("drill", "m", (Key(PaidProvider(eyes)),))]}, settings, seen)
    return Asker(config.group, model, eyes, Path(config.folder) / "tries")


__all__ = ["Config", "reply_to", "run"]
