"""What an agent asks a model for, and what it gets back: the gateway's side of the language."""

import functools
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from contracts.values import Money, Tier, Value

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom a call is made; never part of what the provider sees or of the request hash."""

    ticket_id: str
    tenant_id: str
    event_id: str
    agent: str  # the consumer group
    step: str  # names this call within the handling of one event, e.g. "classify"
    deadline: datetime | None = None  # bounds the provider's time-out


@dataclass(frozen=True, slots=True)
class ModelRequest(Generic[AnswerT]):
    """One question with a closed answer. `answer` is the schema the model must fill."""

    tier: Tier
    system: str  # instructions; ours
    content: str  # the material, untrusted text marked as such; theirs
    answer: type[AnswerT]
    max_output_tokens: int = 1024
    cacheable: bool = False  # may be answered from the tenant's response cache

    def digest(self) -> str:
        """SHA-256 over everything that shapes the answer, in canonical JSON; nothing volatile."""
        canonical = json.dumps(
            [self.tier, self.system, self.content, _schema_of(self.answer), self.max_output_tokens],
            sort_keys=True,
            ensure_ascii=False,
            separators=(",", ":"),
        )
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@functools.lru_cache(maxsize=256)
def _schema_of(answer: type[BaseModel]) -> dict[str, Any]:
    """The answer's schema: building it anew costs a millisecond, and a request is digested several times."""
    return answer.model_json_schema()


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
    outcome: str  # ok | malformed


@dataclass(frozen=True, slots=True)
class ModelAnswer(Generic[AnswerT]):
    """A valid answer and the provider calls behind it (none when it came from the cache)."""

    value: AnswerT
    calls: tuple[ModelCall, ...]
