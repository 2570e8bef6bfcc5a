"""The ports of the model gateway: what it asks of the stores that its workers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from contracts.models import CallContext, ModelCall
from contracts.values import Tier

# --- what was bought --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One try at one model, from before it is made. `id` is our own; the provider's is known only afterwards."""

    id: str
    context: CallContext
    tier: Tier
    provider: str
    model: str
    day: date  # UTC: the window of the budgets it counts in
    key: str = ""  # the last four characters of the API key


class Hold(NamedTuple):
    """What is set aside for a call until it is settled."""

    usd: Decimal
    tokens: int
    lease_s: float  # after so long, whoever held it is taken for dead


class Entry(NamedTuple):
    """A paid result on its way into the journal, under the event and the step of its call."""

    request_digest: str
    result: bytes


class ModelCalls(Protocol):
    """The book of provider calls, one row each: the truth that budgets are rebuilt from."""

    async def open(self, call: ProviderCall, hold: Hold) -> None:
        """Write down that a call is about to be made, and what is held for it."""

    async def finish(self, call: ProviderCall, made: ModelCall, answer: Entry | None) -> None:
        """Write down what became of a call, opened or not, with its event and its answer for the journal, at once.

        Safe to repeat: a call that is finished stays as it is.
        """

    async def drop(self, call_id: str) -> None:
        """Forget a call that was opened and never made."""


class CostRow(NamedTuple):
    """What some calls came to. `key` is the ticket, agent, tenant or day they have in common."""

    key: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    estimated_usd: Decimal  # the part of it that no provider said
    open_usd: Decimal  # held for calls that are being made, besides


# --- budgets ----------------------------------------------------------------------------------------------


class Budget(NamedTuple):
    """What somebody may spend in a window. None: no limit of that unit."""

    scope: str  # ticket | customer | tenant | agent | day
    scope_id: str
    window: str  # the UTC day, YYYY-MM-DD; "": no window, for ever
    usd: Decimal | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Granted:
    """The hold is set aside, in every budget."""


@dataclass(frozen=True, slots=True)
class Busy:
    """There is room only when others settle for less than they hold."""

    budget: Budget


@dataclass(frozen=True, slots=True)
class Spent:
    """There is no room, however others settle."""

    budget: Budget


class Budgets(Protocol):
    """Money and tokens set aside before a call, in several budgets at once or in none."""

    async def reserve(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> Granted | Busy | Spent:
        """Set aside, and open the call in the book. Nothing is held when the answer is not Granted.

        Raises StoreUnavailable: whether it is held is unknown; it lapses.
        """

    async def settle(
        self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget], *, usd: Decimal, tokens: int
    ) -> None:
        """Turn a hold into what the call came to. The book must have it by then."""

    async def release(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> None:
        """Give a hold back: the call was not made."""


class Spending(Protocol):
    """What came of budgets so far."""

    async def share_spent(self, budgets: Sequence[Budget]) -> float:
        """The largest share of these budgets that is settled, holds left out; 0 of none. Takes nothing itself."""


# --- limits -----------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """What a call puts on a key; also what a key takes a minute, where 0 means no limit."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tokens: int = 0  # both together


@dataclass(frozen=True, slots=True)
class KeyGranted:
    """The call may be made now with this key (its place in the pool)."""

    key: int


@dataclass(frozen=True, slots=True)
class KeyWait:
    """No key has room; ask again after so long."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class NoKey:
    """Every key is taken out; the first one comes back after so long."""

    wait_s: float


class KeyLimits(Protocol):
    """What a provider's API keys took in the last minute, counted for all workers together."""

    async def acquire(self, call_id: str, load: Load, *, lease_s: float) -> KeyGranted | KeyWait | NoKey:
        """Take room for a call on the key that has most of it. Safe to repeat."""

    async def settle(self, call_id: str, key: int, load: Load, used: Load | None) -> None:
        """Put what was used in the place of what was taken; None: the call was not made."""

    async def pause(self, key: int, wait_s: float) -> None:
        """Leave a key alone for a while: it has had enough, or is refused."""

    async def correct(self, key: int, left: Load, limit: Load) -> None:
        """Count what others used: the provider says that so much is left (-1: it does not say)."""

    async def share_used(self) -> float | None:
        """The share of the tightest limit that is taken, or will be at the pace of the last seconds; that may pass 1.

        Over all keys that are not left alone: 1 when all are, None when there is no limit. Takes nothing itself.
        """


# --- breakers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pass:
    """A call may be made. A probe is the only one in the fleet, and what becomes of it decides."""

    probe: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """No call may be made for so long."""

    wait_s: float


class Breakers(Protocol):
    """Whether models answer, told once for all workers. `target` names a provider's model."""

    async def ask(self, target: str, call_id: str) -> Pass | Open:
        """Whether a call may be made now."""

    async def tell(self, target: str, call_id: str, *, answered: bool | None) -> Pass | Open:
        """Say whether a model answered, None: that cannot be said. Returns how its breaker stands now."""

    async def is_open(self, target: str) -> bool:
        """Whether it is left alone, until a probe was answered. Asks for no probe, and counts as no call.

        Raises StoreUnavailable: only workers know how it stands.
        """


# --- answers ----------------------------------------------------------------------------------------------


class Flights(Protocol):
    """Who asks for an answer that others wait for."""

    async def lead(self, key: str, owner: str, *, lease_s: float) -> bool:
        """Become or stay the one who asks. False: somebody else is, and alive."""

    async def land(self, key: str, owner: str) -> None:
        """Make room for the next."""


class Nearest(NamedTuple):
    """The recorded request that is most like one that is not there."""

    request: Mapping[str, Any]
    ticket_id: str


class Recordings(Protocol):
    """Answers by the digest of their request, kept to be given again in a replay."""

    async def find(self, digest: str) -> bytes | None:
        """The answer to a request, if it was recorded."""

    async def keep(self, digest: str, call: CallContext, request: Mapping[str, Any], reply: bytes) -> None:
        """Record an answer; the first one stays."""

    async def nearest(self, call: CallContext) -> Nearest | None:
        """A recorded request of the same step: of the same ticket, else of any."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What a budget's window came to by the book: settled, and held by calls that are being made."""

    usd: Decimal = Decimal(0)
    tokens: int = 0
    held: Mapping[str, Hold] = field(default_factory=dict)  # by call id; lease_s is what is left of it
    lapsed: Mapping[str, Hold] = field(default_factory=dict)  # the same, for those that are over: not counted as held
