"""What an agent asks a model for, and what it gets back: the gateway's side of the language."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from contracts.values import Money, Tier, Value

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Reuse(StrEnum):
    """Whom an answer may be given to again."""

    NEVER = "never"
    TENANT = "tenant"  # whoever asks the same for the same tenant
    SHARED = "shared"  # whoever asks the same: it rests on nothing of a tenant's own


class Degrade(StrEnum):
    """What an agent wants where a budget is spent, or no model of the tier answers."""

    CHEAPER = "cheaper"  # ask the next cheaper tier
    WAIT = "wait"  # until the budget's window is over, or a model answers
    PERSON = "person"  # ModelDenied: the agent hands over


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom a call is made; never part of what the provider sees or of the request hash."""

    ticket_id: str
    tenant_id: str
    event_id: str
    agent: str  # the consumer group
    step: str  # names this call within the handling of one event, e.g. "classify"
    deadline: datetime | None = None  # bounds the provider's time-out
    agent_version: str = ""
    customer: str = ""  # who wrote, as the producer says; "" is unknown

    @property
    def customer_digest(self) -> str:
        """Who a tenant's customer is, in the book of calls and in budgets: not told in the clear. "" is unknown."""
        if not self.customer:
            return ""
        return digest_of([self.tenant_id, self.customer.strip().casefold()])[:24]


@dataclass(frozen=True, slots=True)
class ModelRequest(Generic[AnswerT]):
    """One question with a closed answer. `answer` is the schema the model must fill."""

    tier: Tier
    system: str  # instructions; ours
    content: str  # the material, untrusted text marked as such; theirs
    answer: type[AnswerT]
    max_output_tokens: int = 1024
    reuse: Reuse = Reuse.NEVER
    escalate_below: Mapping[Tier, float] = field(default_factory=dict)
    """A tier's answer that is less confident (its field `confidence`) is asked of the next tier."""
    on_breach: Degrade = Degrade.PERSON
    on_outage: Degrade = Degrade.WAIT

    def canonical(self) -> dict[str, Any]:
        """Everything that shapes the answer, as JSON values; nothing volatile."""
        return {
            "tier": self.tier.value,
            "system": self.system,
            "content": self.content,
            "schema": _schema_digest(self.answer),
            "max_output_tokens": self.max_output_tokens,
        }

    def digest(self) -> str:
        """SHA-256 over the canonical request."""
        return digest_of(self.canonical())


def digest_of(document: Any) -> str:
    """SHA-256 over a document in canonical JSON."""
    canonical = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@functools.lru_cache(maxsize=256)
def _schema_digest(answer: type[BaseModel]) -> str:
    """Building a schema costs a millisecond, and a request is digested several times."""
    return digest_of(answer.model_json_schema())


class ModelCall(Value):
    """One call to a provider, as the provider accounted for it."""

    call_id: str  # the provider's response id, or our own where it gave none
    step: str
    tier: Tier
    provider: str
    model: str
    input_tokens: int = 0  # all input, cached reads and writes included
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: Money
    latency_s: float
    outcome: str  # ok | malformed | overloaded | unavailable | refused
    estimated: bool = False  # the provider did not say what it used: charged what was reserved


@dataclass(frozen=True, slots=True)
class ModelAnswer(Generic[AnswerT]):
    """A valid answer and the provider calls behind it (none when it came from the cache)."""

    value: AnswerT
    calls: tuple[ModelCall, ...]
