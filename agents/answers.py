"""Answers: the closed schemas that models fill. Nothing a model says reaches an event by another way."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.shop import ActionKind
from contracts.values import Label, Priority


class ClosedAnswer(BaseModel):
    """Only the fields named, all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TriageVerdict(ClosedAnswer):
    """What a message is about."""

    label: Label
    confidence: float = Field(ge=0, le=1)
    language: str = Field(pattern=r"^[a-z]{2}$", description="ISO 639-1 code of the message's language")
    priority: Priority
    reason: str = Field(max_length=500, description="one short sentence")
    others: tuple[Label, ...] = Field((), max_length=12, description="labels of what else the message asks for")


class Intent(StrEnum):
    """What the model would do with a request."""

    ACT = "act"
    EXPLAIN = "explain"
    ASK = "ask"
    HUMAN = "human"


class AddressParts(ClosedAnswer):
    """A postal address as far as the customer gave it."""

    address1: str | None = Field(max_length=200)
    address2: str | None = Field(max_length=200)
    city: str | None = Field(max_length=100)
    state: str | None = Field(max_length=100)
    country: str | None = Field(max_length=100)
    zip: str | None = Field(max_length=20)


class ItemChange(ClosedAnswer):
    """A piece of an order, and what the customer wants in its place."""

    item: str = Field(max_length=200, description="name or item id of the piece")
    options: list[str] = Field(max_length=20, description="the option values the customer wants, from the variants")


class ReasoningProposal(ClosedAnswer):
    """What the model proposes; code decides."""

    intent: Intent
    action: ActionKind | None
    cancel_reason: Literal["no longer needed", "ordered by mistake"] | None
    items: list[str] = Field(max_length=50, description="names or item ids the customer names; empty means all")
    changes: list[ItemChange] = Field(default=[], max_length=50, description="pieces to change or exchange")
    refund_to: Literal["original", "gift_card"] | None
    pay_with: Literal["original", "gift_card", "paypal", "credit_card"] | None = None
    new_address: AddressParts | None
    reply_draft: str = Field(max_length=4000)
    citations: list[str] = Field(max_length=20, description="ids of the policy passages the reply rests on")
    confidence: float = Field(ge=0, le=1)
