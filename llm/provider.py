"""The inner port: one model of one provider, and what is said to it and comes back."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from contracts.models import CallContext, ModelRequest
from llm.schema import strict_schema


@dataclass(frozen=True, slots=True)
class Repair:
    """The answer that could not be used, shortened, and what was wrong with it."""

    answer: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One attempt at a request: what a provider is asked, for whom, and how long it may take.

    Links of the chain and providers see the same prompt; a link may hand on a changed copy.
    """

    request: ModelRequest[Any]
    call: CallContext
    timeout_s: float
    repair: Repair | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the answer, as strict modes want it."""
        answer: type[BaseModel] = self.request.answer
        return strict_schema(answer)

    def digest(self) -> str:
        """The request's digest; a repair has its own, since it is another question."""
        if self.repair is None:
            return self.request.digest()
        canonical = json.dumps([self.request.digest(), self.repair.answer, self.repair.complaint])
        return hashlib.sha256(canonical.encode()).hexdigest()

    def turns(self) -> list[tuple[str, str]]:
        """The conversation as (role, text): the material, and for a repair the mistake and the complaint."""
        turns = [("user", sendable(self.request.content))]
        if self.repair is not None:
            turns.append(("assistant", sendable(self.repair.answer) or "(no answer)"))
            turns.append(("user", _REPAIR.format(complaint=sendable(self.repair.complaint))))
        return turns


_REPAIR = "That answer cannot be used: {complaint}. Answer the same question again, with one JSON object of the schema."


@dataclass(frozen=True, slots=True)
class Completion:
    """A provider's answer as text, and its own account of the call.

    `input_tokens` counts all input; cached reads and writes are parts of it.
    """

    text: str
    call_id: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Provider(Protocol):
    """One model of one provider. Never tries twice: the policy is the gateway's."""

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask the model once, within the prompt's time-out.

        Raises ModelOverloaded, ModelUnavailable: try later. ModelRefused: it will not get better.
        """


def sendable(text: str) -> str:
    """Text that UTF-8 can carry: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
