"""The ports: what agents and engine may ask of the world. Adapters fit by shape; mypy proves it in `ops.wiring`.

Every adapter turns its SDK's errors into those of `contracts.errors`: any method here may raise
StoreUnavailable, and leaves nothing half done when it does unless it says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from contracts.events import Event, SendReply, ShopCommand
from contracts.models import AnswerT, CallContext, ModelAnswer, ModelRequest
from contracts.shop import Customer, Order, Passage
from contracts.ticket import Step, Ticket
from contracts.values import Money


class Agent(Protocol):
    """Values in, values out: reads through ports, changes the world only by what its step emits."""

    @property
    def name(self) -> str:
        """Its consumer group."""

    @property
    def version(self) -> str:
        """One hash over code, prompt, model, tools and schema."""

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Decide the next step. Must be safe to call again with the same arguments."""


# --- tickets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """An encoded event on its way to a topic; the key is the ticket id."""

    event_id: str
    type: str
    ticket_id: str
    topic: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """All that one handled delivery changes: stored whole or not at all."""

    group: str
    event: Event
    position: Position
    ticket: Ticket  # the new state; its `version` is the one that was loaded
    outgoing: tuple[OutgoingRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """An outbox row: a record that is stored and may not be published yet."""

    outbox_id: int
    record: OutgoingRecord


@dataclass(frozen=True, slots=True)
class Published:
    """Where an outbox row's record came to stand."""

    outbox_id: int
    position: Position


class TicketStore(Protocol):
    """Shared ticket state under optimistic locking, with the inbox and the outbox in the same write."""

    async def load(self, ticket_id: str) -> Ticket | None:
        """The ticket as it is now, or None when nobody stored it yet."""

    async def handled(self, group: str, event_id: str) -> bool:
        """Whether the group has settled this event."""

    async def settle(self, settlement: Settlement) -> Sequence[StoredRecord] | None:
        """Store inbox row, ticket at version + 1 and outbox rows in one write.

        Returns the outbox rows in the order given, or None when the group had settled the event before
        (nothing is stored then). A ticket that equals the stored one keeps its version.
        Raises VersionConflict: the ticket is at another version; nothing is stored, the inbox row neither.
        """

    async def claim_unpublished(self, *, older_than_s: float, lease_s: float, limit: int) -> Sequence[StoredRecord]:
        """Lease outbox rows that somebody stored and did not publish, oldest first, for one claimant at a time."""

    async def mark_published(self, published: Sequence[Published]) -> None:
        """Note that outbox rows were acknowledged by Kafka."""


class Journal(Protocol):
    """Paid results, kept as soon as they are there, so that a crash does not buy them again."""

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The result kept under this key, if any."""

    async def keep(self, call: CallContext, request_digest: str, result: bytes) -> None:
        """Keep a result; the first one kept under a key stays."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened to a ticket. `at` is database time, UTC."""

    at: datetime
    what: str  # handled | emitted | effect
    detail: Mapping[str, Any] = field(default_factory=dict)


class Timelines(Protocol):
    """A ticket's history, for people."""

    async def timeline(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """Everything known of the ticket, oldest first."""


# --- the shop ---------------------------------------------------------------------------------------------


class Shop(Protocol):
    """A tenant's customers, orders and policy, as they are now. Reads are scoped to the tenant."""

    async def customer(self, tenant_id: str, email: str) -> Customer | None:
        """The customer with this e-mail address, compared without regard to case."""

    async def orders_of(self, tenant_id: str, user_id: str) -> Sequence[Order]:
        """All orders of a customer, in the order of their ids."""

    async def order(self, tenant_id: str, order_id: str) -> Order | None:
        """The order of that id, whoever owns it: callers check the owner."""

    async def policy(self, tenant_id: str) -> Sequence[Passage]:
        """The policy in force, passage by passage; empty when none was loaded."""


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What an effect did: the order as it is after it (None for a reply), and the money it moved."""

    order: Order | None
    amount: Money


class EffectsPort(Protocol):
    """Carries commands out, each effect key once."""

    async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
        """Change one of the customer's own orders; a key applied before returns what it did then.

        Raises EffectRefused: the order is not the customer's, or its rows no longer allow it.
        """

    async def send(self, command: SendReply) -> EffectResult:
        """Hand a reply to the customer's channel, once."""


# --- models -----------------------------------------------------------------------------------------------


class ChatModel(Protocol):
    """The gateway as agents see it."""

    async def ask(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        """A valid answer, repaired at most once.

        Raises ModelOverloaded, ModelUnavailable: try later. ModelAnswerUnusable (with the calls paid for),
        ModelRefused: it will not get better.
        """


class AnswerCache(Protocol):
    """Answers that may be given again: losing all of them costs money, never a wrong answer."""

    async def get(self, tenant_id: str, request_digest: str) -> bytes | None:
        """The answer kept for this tenant, if any."""

    async def put(self, tenant_id: str, request_digest: str, answer: bytes, ttl_s: float) -> None:
        """Keep an answer for a while."""
