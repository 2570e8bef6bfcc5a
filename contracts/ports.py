"""The ports: what agents and engine may ask of the world. Adapters fit by shape; mypy proves it in `ops.wiring`.

Every adapter turns its SDK's errors into those of `contracts.errors`: any method here may raise
StoreUnavailable, and leaves nothing half done when it does unless it says so.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from contracts.control import ControlOrder, Course, Presence, Scale, Seen
from contracts.errors import ContractBroken, TenantMismatch, VersionConflict
from contracts.events import Event, ReviewRequested, SendReply, ShopCommand
from contracts.models import AnswerT, CallContext, ModelAnswer, ModelRequest
from contracts.reviews import Move, Review, ReviewFilter
from contracts.shop import Customer, Order, Passage, Product
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


# --- records ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A record as Kafka handed it over. aiokafka's own record has these fields too, and stands for it in the bus."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # milliseconds since 1970; -1 when it has none
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_type: int = 0  # 0 set by the producer, 1 by the broker


class Position(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class OutgoingRecord(NamedTuple):
    """An encoded event on its way to a topic; the key is the ticket id."""

    event_id: str
    type: str
    ticket_id: str
    topic: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


# --- tickets ----------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """What to look up for a record before it is handled."""

    event_id: str
    ticket_id: str
    with_ticket: bool = True  # False: whoever asks has the ticket, or will


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knew, at one moment, of the records it was asked about."""

    handled: frozenset[str] = frozenset()  # ids of events the group has settled
    tickets: Mapping[str, Ticket] = field(default_factory=dict)  # of those asked for, those stored, by ticket id
    parked: frozenset[str] = frozenset()  # ids of tickets that are parked for the group


@dataclass(frozen=True, slots=True)
class Settlement:
    """All that one handled delivery changes: stored whole or not at all."""

    group: str
    event: Event
    position: Position
    ticket: Ticket  # the new state; its `version` is the one that was loaded
    outgoing: tuple[OutgoingRecord, ...] = ()


class StoredRecord(NamedTuple):
    """An outbox row: a record that is stored and may not be published yet."""

    outbox_id: int
    record: OutgoingRecord


@dataclass(frozen=True, slots=True)
class Stored:
    """A settlement that is stored: the ticket's version now, and the outbox rows that are the caller's to publish.

    Version 0: it was stored before, and the stored ticket is not the one it has now: load it.
    Fewer rows than the settlement has: earlier ones of that ticket and topic are unpublished in other hands.
    Those left out wait in the outbox, behind them, for whoever takes them over.
    """

    version: int
    records: tuple[StoredRecord, ...] = ()


Settled = Stored | VersionConflict | TenantMismatch | ContractBroken | None
"""What became of one settlement. An error: nothing of it is stored, its inbox row neither.
None: the group had settled the event before, and nothing of it is left for this owner to publish."""


class Published(NamedTuple):
    """Where an outbox row's record came to stand."""

    outbox_id: int
    position: Position


class TicketStore(Protocol):
    """Shared ticket state under optimistic locking, with the inbox and the outbox in the same write."""

    async def load(self, ticket_id: str) -> Ticket | None:
        """The ticket as it is now, or None when nobody stored it yet."""

    async def look_up(self, group: str, wanted: Sequence[Wanted]) -> Known:
        """What is known of many records, in one statement. Thousands may be asked for at once."""

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        """Store inbox row, ticket at version + 1 and outbox rows of each settlement, many in one statement.

        The results stand in the order given. A settlement that cannot be stored fails alone. No two may be
        of the same ticket. A ticket that equals the stored one keeps its version. The outbox rows belong to
        `owner`, the worker that is to publish them; "": to whichever worker takes them over.
        An event that the group has settled before, with rows that this owner has still to publish, gives
        these as Stored: so whoever settles again after StoreUnavailable loses nothing.
        Raises StoreUnavailable: the outcome of all is unknown.
        """

    async def overdue(self, *, grace_s: float, limit: int) -> Sequence[Ticket]:
        """Tickets with an open round whose deadline passed more than `grace_s` ago, by the database's clock."""


class Outbox(Protocol):
    """What is stored and has still to be published. Each row belongs to the worker that stored it."""

    async def mark_published(self, published: Sequence[Published]) -> None:
        """Note that rows were acknowledged by Kafka; the first note on a row stays."""

    async def take_over(self, owner: str, *, limit: int) -> Sequence[StoredRecord]:
        """Make rows this owner's that belong to nobody, or to a worker whose lease is over; oldest first.

        Records of a ticket on a topic are handed out in order: none while an earlier one is unpublished in the
        hands of another living worker. `owner` itself must hold a lease (`worker_lease`).
        """


class Leases(Protocol):
    """Rights that one holder has at a time, for a while, by the database's clock."""

    async def hold(self, name: str, owner: str, *, lease_s: float) -> bool:
        """Take or renew a lease; False while another owner has it."""

    async def release(self, name: str, owner: str) -> None:
        """Give a lease back; nothing when it is not this owner's."""

    async def holder(self, name: str) -> str | None:
        """Who has the lease now, if anybody."""


def worker_lease(owner: str) -> str:
    """The lease that says a worker lives: its outbox rows are its own to publish."""
    return f"worker/{owner}"


def absence_lease(group: str) -> str:
    """The lease whose holder has a group's workers out of it, whatever they were ordered; they return when it ends."""
    return f"absence/{group}"


# --- parked tickets ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A record that waits in the database, first of its ticket's queue."""

    parked_id: int
    ticket_id: str
    record: Record
    attempts: int  # tries spent so far
    due_in_s: float  # until it may be tried again, by the database's clock; not above 0: now


class Parking(Protocol):
    """Tickets that wait: for a group, the failed record of a ticket and behind it, in order, its later ones."""

    async def park(
        self, group: str, ticket_id: str, record: Record, *, wait_s: float, attempts: int, error: str
    ) -> None:
        """Park a ticket behind a record that is to be tried again in `wait_s` seconds.

        When that record is first in the ticket's queue already, it stays there with a new due time and attempts.
        """

    async def block(self, group: str, ticket_id: str, record: Record, *, attempts: int, error: str) -> None:
        """Park a ticket behind a record that is a dead letter: until somebody redrives or discards it.

        Safe to repeat; the record leaves the queue's due ones if it was there.
        """

    async def queue(self, group: str, followers: Sequence[tuple[str, Record]]) -> Sequence[bool]:
        """Put records (ticket id, record) at the end of their tickets' queues, in the order given; safe to repeat.

        False: the ticket is not parked (any more), the record is the caller's to handle.
        """

    async def due(
        self, group: str, *, within_s: float, limit: int, besides: Collection[int] = ()
    ) -> Sequence[ParkedRecord]:
        """The first records of queues that fall due within so many seconds, earliest first.

        Not those `besides` (ids): the caller has them in hand, and they stay due until they are released.
        """

    async def release(self, group: str, ticket_id: str, parked_id: int) -> ParkedRecord | None:
        """Drop a first record that is settled; returns the next one of the queue, due at once.

        None: the queue is empty, the ticket is not parked any more. Safe to repeat: what is first by then is told,
        with its own due time, or None when that is a dead letter.
        """


# --- control ----------------------------------------------------------------------------------------------


class Controls(Protocol):
    """What ops ordered, kept for workers that start later, and which workers there are."""

    async def give(self, order: ControlOrder) -> None:
        """Keep an order, after all that were kept before it; one that is known by its id changes nothing."""

    async def course(self, group: str, worker: str) -> Course:
        """What a worker of a group is to do; "" is one that was never ordered anything by name.

        While somebody has the group's `absence_lease` it is DRAINED, and afterwards what it was ordered before.
        """

    async def report(self, presence: Presence) -> None:
        """Note that a worker is there, and how it is."""

    async def workers(self, group: str, *, within_s: float) -> Sequence[Seen]:
        """A group's workers that reported within so many seconds and did not leave, by name."""

    async def leave(self, group: str, worker: str) -> None:
        """Note that a worker of a group ended."""


class Scales(Protocol):
    """How many workers each agent is to have, and how that came about."""

    async def decide(self, scale: Scale) -> None:
        """Keep a decision, after all that were kept before it."""

    async def wanted(self) -> Mapping[str, int]:
        """How many workers each agent is to have that anybody decided about."""

    async def decisions(self, agent: str | None, *, limit: int) -> Sequence[Scale]:
        """The last decisions about an agent, or about all (None), newest first."""

    async def advise(self, scale: Scale) -> None:
        """Keep what was found right for an agent, changed or not, in the place of what was found before."""

    async def advice(self, agent: str) -> Scale | None:
        """What was found right for an agent last; None: nobody looked yet."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What the engine keeps in the database."""

    tickets: TicketStore
    outbox: Outbox
    parking: Parking
    leases: Leases
    controls: Controls


# --- reviews ----------------------------------------------------------------------------------------------


class Reviews(Protocol):
    """What people are asked to decide: the one place that says what is open, and who decided what is not."""

    async def open(self, request: ReviewRequested, event_id: str, *, due_in_s: float) -> None:
        """Note a review that an event asks for. One that is noted stays as it is."""

    async def find(self, review_id: str) -> Review | None:
        """The review as it is now."""

    async def matching(self, wanted: ReviewFilter, *, limit: int) -> Sequence[Review]:
        """The reviews that are wanted, longest waiting first."""

    async def overdue(self, *, limit: int) -> Sequence[Review]:
        """Open reviews whose due time passed, by the database's clock, longest ago first."""

    async def move(self, review: Review, move: Move, record: OutgoingRecord) -> bool:
        """Make a move on an open review, and store the event that tells of it to be published, in one write.

        False: the review is no longer at this version, or no longer open, and nothing is stored.
        """


# --- paid results and history -----------------------------------------------------------------------------


class Journal(Protocol):
    """Paid results, kept with their calls (`contracts.model_ports.ModelCalls`), so that a crash buys none again."""

    async def recall(self, event_id: str, step: str, request_digest: str) -> bytes | None:
        """The result kept under this key, if any; the first one that was kept stays."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened to a ticket. `at` is database time, UTC."""

    at: datetime
    what: str  # handled | emitted | effect | person
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

    async def products(self, tenant_id: str, product_ids: Collection[str]) -> Mapping[str, Product]:
        """The products of these ids with their variants as they are now, by id; unknown ones are left out."""

    async def policy(self, tenant_id: str) -> Sequence[Passage]:
        """The policy in force, passage by passage; empty when none was loaded."""


class PolicySearch(Protocol):
    """Finds what of a tenant's policy bears on a text."""

    async def search(self, tenant_id: str, text: str, *, max_chars: int) -> Sequence[Passage]:
        """Passages of the policy in force, in its order: all when they fit, else those that bear most on the text.

        The same text and version of the policy give the same passages.
        """


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What an effect did: the order as it is after it (None where it is about none), and the money it moved."""

    order: Order | None
    amount: Money


class EffectsPort(Protocol):
    """Carries commands out, each effect key once."""

    async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
        """Change one of the customer's own orders, or their account; a key applied before returns what it did then.

        Raises EffectRefused: the order is not the customer's, or the shop's rows no longer allow it.
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


class Embedder(Protocol):
    """Turns texts into vectors whose dot product says how alike the texts are in meaning."""

    @property
    def name(self) -> str:
        """Which model, down to its weights: vectors of two names are not to be compared."""

    @property
    def dimensions(self) -> int:
        """The length of each vector."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """A vector of length one for each text, in their order; away from the event loop."""
