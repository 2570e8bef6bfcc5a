"""The ports of effects that others carry out: where a command is sent, and what is known of each try."""

from dataclasses import dataclass
from typing import Protocol

from contracts.events import Command
from contracts.ports import EffectResult


@dataclass(frozen=True, slots=True)
class First:
    """Nobody tried this key before, or no try of it can have had an effect: it is ours now."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A try was begun and nobody knows what came of it: it is ours now, and to be asked for first."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody began a try so lately that it may still be under way."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """The effect has happened."""

    result: EffectResult


@dataclass(frozen=True, slots=True)
class Refused:
    """The effect will not happen."""

    reason: str


Begun = First | InDoubt | Busy | Done | Refused


class Attempts(Protocol):
    """The book of tries: an effect key is begun, in doubt, done or refused. Who tries writes it down first."""

    async def begin(self, command: Command, user_id: str | None, outlet: str, *, lease_s: float) -> Begun:
        """Note that a try begins, which takes no longer than `lease_s`. Nothing is noted when it is not ours.

        Raises ContractBroken: the key was used for another command.
        """

    async def drop(self, effect_key: str) -> None:
        """Note that a try had no effect, for certain."""

    async def doubt(self, effect_key: str, why: str) -> None:
        """Note that nobody knows what came of a try."""

    async def done(self, command: Command, user_id: str | None, result: EffectResult) -> None:
        """Note that the effect has happened; the first result stays."""

    async def refused(self, effect_key: str, why: str) -> None:
        """Note that the effect will not happen."""


@dataclass(frozen=True, slots=True)
class NotDone:
    """Whoever was asked knows that the effect has not happened."""


@dataclass(frozen=True, slots=True)
class Untold:
    """There is nobody to ask. `repeat`: to send the command once more does no harm worth a person's time."""

    repeat: bool


Answer = Done | NotDone | Untold


class Outlet(Protocol):
    """Somebody outside who carries commands out."""

    @property
    def name(self) -> str:
        """How it is named in the book of tries."""

    @property
    def timeout_s(self) -> float:
        """How long a try takes at most."""

    @property
    def at_once(self) -> int:
        """How many tries may be under way together."""

    async def deliver(self, command: Command, user_id: str | None) -> EffectResult:
        """Have the command carried out; `user_id` is the shop's customer, None for a reply.

        Raises EffectRefused: it will not be, ever. OutcomeUnknown: it may be. OutletAway or another Transient: it
        was not, this time.
        """

    async def ask(self, command: Command) -> Answer:
        """What became of a command that was sent before. Raises as `deliver` does, but for EffectRefused."""
