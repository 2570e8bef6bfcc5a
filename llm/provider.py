"""The inner port: one model of one provider, and what is said to it and comes back."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pydantic import BaseModel

from contracts.model_ports import Hold, Load, ProviderCall
from contracts.models import CallContext, ModelCall, ModelRequest, digest_of
from llm.schema import schema_chars, strict_schema

UNKNOWN = Load(-1, -1, -1, -1)
"""A provider that does not say what is left of its limits."""


@dataclass(frozen=True, slots=True)
class Repair:
    """The answer that could not be used, shortened, and what was wrong with it."""

    answer: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Key:
    """One API key of a provider: what asks with it, and the last characters by which people know it."""

    provider: "Provider"
    tail: str = ""
    id: str = ""  # a digest: how workers speak of it to one another


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One model that can answer, and the keys to ask it with."""

    provider_name: str  # as the price table spells it, the model too
    model: str
    keys: tuple[Key, ...]

    @property
    def name(self) -> str:
        """`provider:model`."""
        return f"{self.provider_name}:{self.model}"


@dataclass(slots=True)
class Attempt:
    """One try at one target. `made` is what became of the call, once it was made."""

    call: ProviderCall
    target: Target
    hold: Hold
    key: int = 0  # which of the target's keys
    made: ModelCall | None = None
    left: Load = UNKNOWN  # of the key's limits, as the provider says
    limit: Load = UNKNOWN


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question on its way: what is asked, for whom, who may answer, and how long it may take.

    Links of the chain and providers see the same prompt; a link may hand on a changed copy.
    """

    request: ModelRequest[Any]
    call: CallContext
    timeout_s: float
    repair: Repair | None = None
    targets: tuple[Target, ...] = ()
    attempt: Attempt | None = field(default=None, compare=False)
    _digest: str | None = field(default=None, init=False, compare=False)  # a changed copy has its own

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the answer, as strict modes want it."""
        answer: type[BaseModel] = self.request.answer
        return strict_schema(answer)

    @property
    def at(self) -> Attempt:
        """The try under way. Only links below the fallback may ask."""
        if self.attempt is None:
            raise RuntimeError("no target is chosen yet: this link belongs below the fallback")
        return self.attempt

    def trying(self, attempt: Attempt) -> "Prompt":
        """The same question on its way to one target; it keeps its digest."""
        on_its_way = replace(self, attempt=attempt)
        object.__setattr__(on_its_way, "_digest", self._digest)
        return on_its_way

    def canonical(self) -> dict[str, Any]:
        """The request as JSON values, with the models that may answer it; a repair is another question."""
        repair = [self.repair.answer, self.repair.complaint] if self.repair else None
        models = [target.name for target in self.targets]
        return self.request.canonical() | {"models": models, "repair": repair}

    def digest(self) -> str:
        """SHA-256 over the canonical request."""
        if self._digest is None:
            object.__setattr__(self, "_digest", digest_of(self.canonical()))
        assert self._digest is not None
        return self._digest

    def input_tokens(self) -> int:
        """How many tokens the input has at most: a count before the call, on the safe side."""
        said = [self.request.system, *(text for _, text in self.turns())]
        answer: type[BaseModel] = self.request.answer
        return sum(map(_tokens, said)) + math.ceil(schema_chars(answer) / 3) + _TOKENS_BESIDES

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
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    usage_known: bool = True  # False: the provider did not say what it used
    left: Load = UNKNOWN  # of the key's limits
    limit: Load = UNKNOWN


class Provider(Protocol):
    """One model of one provider. Never tries twice: the policy is the gateway's."""

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask the model once, within the prompt's time-out.

        Raises ModelOverloaded, ModelUnavailable: try later. ModelRefused: it will not get better, with this key
        (ModelKeyRefused) or with any. UsageUnknown: it may have been paid for.
        """


def sendable(text: str) -> str:
    """Text that UTF-8 can carry: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


_TOKENS_BESIDES = 60  # what the providers put around a request


def _tokens(text: str) -> int:
    """A bound for usual text: three characters a token where they are ASCII, and three tokens for two others."""
    ascii_chars = len(text) if text.isascii() else sum(map(str.isascii, text))
    return math.ceil(ascii_chars / 3 + (len(text) - ascii_chars) * 1.5)
