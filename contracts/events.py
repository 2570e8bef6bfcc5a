"""Every event and command that crosses a topic, and the envelope it travels in.

The payload classes are the one source of the JSON Schemas and the AsyncAPI document in `contracts/schemas`.
"""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

from contracts.facts import Assessment, Facts, TakenAction
from contracts.shop import ActionKind, Address
from contracts.values import Disposition, FreeText, Identifier, Label, Money, Tier, Value

DEFAULT_TENANT = "default"
_NAMESPACE = uuid.UUID("6f1d8a52-5a3e-5c1b-9d27-0f7f3f0c7e11")
_NAMESPACE_BYTES = _NAMESPACE.bytes


class Payload(Value):
    """The JSON value of a record. Its class name is the CloudEvents type."""

    schema_version: ClassVar[int] = 1

    ticket_id: Identifier
    tenant_id: Identifier = DEFAULT_TENANT

    @classmethod
    def type_name(cls) -> str:
        """The `ce_type` of this payload."""
        return cls.__name__


# --- support.tickets.v1 -----------------------------------------------------------------------------------


class TicketSubmitted(Payload):
    """A customer wrote. On a known ticket a new body is a follow-up, the same body a duplicate."""

    from_email: FreeText = ""  # who writes, as the producer vouches for it; "" is an unknown customer
    subject: FreeText = ""
    body: FreeText
    order_ref: FreeText | None = None  # a form field, in any shape
    deadline: AwareDatetime | None = None
    message_id: FreeText | None = None  # tells two equal follow-ups apart when no ce_id header is sent
    sender_verified: bool | None = None  # whether `from_email` was checked; None: the tenant's setting says

    def derived_event_id(self) -> str:
        """The event id of a record that brings none: from the ticket's id and what was written."""
        content = "\x1f".join(
            [
                self.tenant_id,
                self.from_email,
                self.subject,
                self.body,
                self.order_ref or "",
                self.message_id or "",
                *([] if self.sender_verified is None else [f"sender verified: {self.sender_verified}"]),
            ]
        )
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        return _named_uuid(f"{self.ticket_id}\x1f{digest}")


class CustomerReplied(Payload):
    """A customer's follow-up on a ticket: always a round of its own."""

    from_email: FreeText = ""
    body: FreeText
    order_ref: FreeText | None = None
    deadline: AwareDatetime | None = None
    sender_verified: bool | None = None


# --- handoffs between agents ------------------------------------------------------------------------------


class TriageRequested(Payload):
    """A person hands a round back to triage."""

    round: int = Field(ge=1)


class LookupRequested(Payload):
    """Triage hands a round to lookup."""

    round: int = Field(ge=1)


class ReasoningRequested(Payload):
    """Triage or lookup hands a round to reasoning."""

    round: int = Field(ge=1)


# --- on no topic: what the store's own sweep notices, and what ops do to a round ---------------------------


class RoundExpired(Payload):
    """A round's deadline passed while nothing moved on its ticket."""

    round: int = Field(ge=1)


class RoundReopened(Payload):
    """A round is to be decided anew: `switchyard rewind --again`."""

    round: int = Field(ge=1)


# --- support.review.v1 ------------------------------------------------------------------------------------


class ReviewRequested(Payload):
    """A person is asked to decide; `evidence` is what they need to see."""

    review_id: Identifier
    round: int = Field(ge=1)
    asked_by: str
    reason: str
    evidence: dict[str, Any] = Field(default_factory=dict)


class ReviewDecided(Payload):
    """A person decided. It counts when the table of reviews names it as what closed the review."""

    review_id: Identifier
    round: int = Field(ge=1)
    decision: Literal["approve", "edit", "answer", "hand_back"]
    decided_by: str
    reply: FreeText = ""  # what the customer is to read; "": what the agent, or the model, wrote
    changes: dict[str, Any] = Field(default_factory=dict)  # edit: fields of the proposal, with their new values
    to: Literal["triage", "lookup", "reasoning"] | None = None  # hand_back: whose turn it is
    note: FreeText = ""  # hand_back: what that agent is to know


class ReviewTimedOut(Payload):
    """Nobody decided in time; `then` is what the tenant's policy says."""

    review_id: Identifier
    round: int = Field(ge=1)
    then: Literal["tell", "close", "hand_over"]
    reply: FreeText = ""  # what the customer is to read; "": a fixed reply in their language
    queue: str = ""  # hand_over: whose turn it is


# --- support.effects.v1: commands -------------------------------------------------------------------------


class Command(Payload):
    """An order to change the world, carried out at most once per effect key."""

    effect_key: Identifier
    round: int = Field(ge=1)


class CancelOrder(Command):
    """Cancel a pending order and refund it to the way it was paid."""

    order_id: str
    reason: Literal["no longer needed", "ordered by mistake"]
    amount: Money | None = None  # the refund the customer agreed to; None: what the order's rows say


class ReturnItems(Command):
    """Ask a delivered order's items back; the refund goes to the payment method named."""

    order_id: str
    item_ids: tuple[str, ...] = Field(min_length=1)
    payment_method_id: str
    amount: Money | None = None  # the refund the customer agreed to; None: what the order's rows say


class _Swap(Command):
    """Pieces of an order for other variants of the same products, the n-th id for the n-th."""

    order_id: str
    item_ids: tuple[str, ...] = Field(min_length=1)
    new_item_ids: tuple[str, ...] = Field(min_length=1)
    payment_method_id: str  # pays the price difference, or gets it back
    difference: Money  # as the customer agreed to it; above 0 they pay


class ExchangeItems(_Swap):
    """Exchange pieces of a delivered order for other variants of the same products."""


class ModifyItems(_Swap):
    """Put other variants of the same products into a pending order, once."""


class ChangePayment(Command):
    """Have a pending order paid another way; what paid it first gets the money back."""

    order_id: str
    payment_method_id: str
    amount: Money  # the order's total, as the customer agreed to it


class ChangeAddress(Command):
    """Send a pending order elsewhere."""

    order_id: str
    address: Address


class ChangeDefaultAddress(Command):
    """Change the address in the customer's own account; orders keep theirs."""

    address: Address


class SendReply(Command):
    """Write to the customer."""

    to_email: str
    subject: str
    text: str


OrderCommand = CancelOrder | ReturnItems | ExchangeItems | ModifyItems | ChangePayment | ChangeAddress
ShopCommand = OrderCommand | ChangeDefaultAddress
ACTION_OF_COMMAND: dict[type[ShopCommand], ActionKind] = {
    CancelOrder: ActionKind.CANCEL_PENDING_ORDER,
    ReturnItems: ActionKind.RETURN_DELIVERED_ORDER_ITEMS,
    ExchangeItems: ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS,
    ModifyItems: ActionKind.MODIFY_PENDING_ORDER_ITEMS,
    ChangePayment: ActionKind.MODIFY_PENDING_ORDER_PAYMENT,
    ChangeAddress: ActionKind.MODIFY_PENDING_ORDER_ADDRESS,
    ChangeDefaultAddress: ActionKind.MODIFY_USER_ADDRESS,
}


# --- support.outcomes.v1 ----------------------------------------------------------------------------------


class Outcome(Payload):
    """How a round of a ticket ended: one a round, its type telling which way."""

    round: int = Field(ge=1)
    disposition: Disposition
    reply: str = ""
    reason: str = ""  # why a person has it, or why it was refused
    label: Label | None = None
    other_labels: tuple[Label, ...] = ()  # what else the message asked for
    orders: tuple[str, ...] = ()  # ids of the orders the answer is about
    actions: tuple[TakenAction, ...] = ()
    agent: str
    agent_version: str
    cost_usd: Money
    lookup: Facts | None = None
    assessment: tuple[Assessment, ...] = ()
    decided_by: str = ""  # the person, where one decided


class TicketResolved(Outcome):
    """The round is settled: answered, acted on or refused."""


class TicketAwaitingCustomer(Outcome):
    """The customer is asked a question, or to confirm an action."""


class TicketEscalated(Outcome):
    """A person has it; TicketResolved follows when they decided."""


class TicketTimedOut(Outcome):
    """The deadline passed first; a person has it now."""


OUTCOME_OF_DISPOSITION: dict[Disposition, type[Outcome]] = {
    Disposition.ANSWERED: TicketResolved,
    Disposition.ACTED: TicketResolved,
    Disposition.REFUSED: TicketResolved,
    Disposition.NEEDS_CUSTOMER: TicketAwaitingCustomer,
    Disposition.ESCALATED: TicketEscalated,
    Disposition.TIMED_OUT: TicketTimedOut,
}


# --- support.usage.v1 -------------------------------------------------------------------------------------


class ModelCalled(Payload):
    """One provider call, as the provider accounted for it."""

    event_id: str  # the event whose handling made the call
    call_id: str
    agent: str
    agent_version: str
    step: str
    tier: Tier
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: Money
    latency_s: float
    outcome: str
    estimated: bool = False


class BudgetReached(Payload):
    """A budget was used up to a level for the first time in its window, by a call for this ticket."""

    scope: str  # ticket | customer | tenant | agent | day
    scope_id: str  # whose budget: an id, a customer's digest
    window: str  # the UTC day; "" for a ticket's whole life
    level: int  # percent: 50, 80 or 100
    unit: str  # usd | tokens
    spent: float
    limit: float


# --- support.control.v1 -----------------------------------------------------------------------------------


class ControlCommand(Value):
    """Addressed to every worker of a group, or to one of them."""

    schema_version: ClassVar[int] = 1

    command_id: Identifier
    group: Identifier
    worker: Identifier | None = None

    @classmethod
    def type_name(cls) -> str:
        """The `ce_type` of this command."""
        return cls.__name__


class _Ordered(ControlCommand):
    by: str = ""  # who ordered it
    reason: str = ""


class Pause(_Ordered):
    """Stop taking records; finish those in flight."""


class Resume(_Ordered):
    """Take records again."""


class Drain(_Ordered):
    """Finish those in flight, commit and leave the group; Resume brings the worker back."""


class SetConcurrency(_Ordered):
    """Change how many lanes run at once."""

    lanes: int = Field(ge=1, le=5000)


class ControlAnswered(ControlCommand):
    """A worker says what became of a control command."""

    done: bool
    detail: str = ""


# --- the envelope -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """A payload and what travels beside it in the record's headers."""

    id: str
    source: str
    time: datetime
    data: Payload
    deadline: datetime | None = None
    causation_id: str | None = None
    traceparent: str | None = None

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return self.data.type_name()

    @property
    def ticket_id(self) -> str:
        """The record's key, and the correlation id of everything that follows."""
        return self.data.ticket_id

    @property
    def tenant_id(self) -> str:
        """Whose ticket it is."""
        return self.data.tenant_id


def caused_id(cause_id: str, group: str, index: int) -> str:
    """The id of the index-th event that a group emits for a cause: the same at every retry."""
    return _named_uuid(f"{cause_id}\x1f{group}\x1f{index}")


def _named_uuid(name: str) -> str:
    """What `str(uuid.uuid5(_NAMESPACE, name))` is, many times faster: one for each event that is read or sent."""
    digest = hashlib.sha1(_NAMESPACE_BYTES + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
