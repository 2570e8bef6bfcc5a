"""Small value types that several contracts share."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, StringConstraints

_set = object.__setattr__  # values are frozen


class Value(BaseModel):
    """An immutable value. Writers may set only known fields; readers ignore unknown ones (see `bus.codec`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __copy__(self) -> Self:
        """A shallow copy, as pydantic makes it of what has no extra or private fields: a step makes several."""
        copied = self.__class__.__new__(self.__class__)
        _set(copied, "__dict__", self.__dict__.copy())
        _set(copied, "__pydantic_fields_set__", self.__pydantic_fields_set__.copy())
        _set(copied, "__pydantic_extra__", None)
        _set(copied, "__pydantic_private__", None)
        return copied


def _without_nul(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


Money = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""An exact amount in Python; a plain number in JSON."""

FreeText = Annotated[str, AfterValidator(_without_nul)]
"""Text a stranger wrote. NUL, which Postgres cannot hold, becomes U+FFFD."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""1 to 200 characters, none of them a control character."""


class Label(StrEnum):
    """What a ticket is about: the twelve labels every triage data set maps to."""

    ORDER_STATUS = "order_status"
    SHIPPING_INFO = "shipping_info"
    RETURN_REFUND = "return_refund"
    CANCEL_ORDER = "cancel_order"
    CHANGE_ORDER = "change_order"
    ADDRESS_CHANGE = "address_change"
    PAYMENT_BILLING = "payment_billing"
    ACCOUNT = "account"
    COMPLAINT = "complaint"
    PRODUCT_QUESTION = "product_question"
    HUMAN_AGENT = "human_agent"
    OUT_OF_SCOPE = "out_of_scope"


class Priority(StrEnum):
    """How soon a ticket wants attention."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class Disposition(StrEnum):
    """How a round of a ticket ended."""

    ANSWERED = "answered"
    ACTED = "acted"
    REFUSED = "refused"
    NEEDS_CUSTOMER = "needs_customer"
    ESCALATED = "escalated"
    TIMED_OUT = "timed_out"


class Tier(StrEnum):
    """What an agent asks the gateway for; configuration maps each tier to models."""

    LOCAL = "local"
    FAST = "fast"
    STRONG = "strong"

    @property
    def next(self) -> "Tier | None":
        """The tier that is asked when this one is unsure."""
        tiers = list(Tier)
        return tiers[tiers.index(self) + 1] if self is not tiers[-1] else None

    @property
    def cheaper(self) -> "Tier | None":
        """The tier that is asked when this one cannot be afforded or had."""
        tiers = list(Tier)
        return tiers[tiers.index(self) - 1] if self is not tiers[0] else None
