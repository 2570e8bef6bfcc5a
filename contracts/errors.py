"""The closed set of errors: the class says what happens to the delivery next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contracts.models import ModelCall


class SupportError(Exception):
    """Base of every error that carries a policy; anything else is a bug."""


class Transient(SupportError):
    """Would likely succeed later: retried in place, dead-lettered when the tries are spent."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Outage(Transient):
    """A dependency is away: waits as long as it takes, spends no try, dead-letters nothing."""


class StoreUnavailable(Outage):
    """Postgres or Redis cannot be reached, or its pool is exhausted."""


class BusUnavailable(Outage):
    """Kafka cannot be reached, or did not acknowledge in time (the outcome is then unknown)."""


class OutletAway(Outage):
    """Whoever carries effects out, the mail server or the shop's own system, cannot be reached; nothing was done."""


class ModelsAway(Outage):
    """Every model of the tier is away: its breaker is open, or no key of it may be used."""


class Deferred(Transient):
    """Not now, and it is nobody's fault: the ticket is parked for `retry_after_s`, no try is spent."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class VersionConflict(Transient):
    """The ticket moved on since it was loaded; nothing was stored. Decide again on fresh state."""


class OutcomeUnknown(Transient):
    """An effect may have happened: whoever was to carry it out did not say. To be asked for before it is repeated."""


class ModelOverloaded(Transient):
    """The provider answered 429 or 529; `retry_after_s` is what it asked for, if it did."""


class ModelRateLimited(ModelOverloaded):
    """The provider answered 429: this key has had enough for now."""


class ModelUnavailable(Transient):
    """The provider timed out, cut the stream, or answered 5xx."""


class UsageUnknown(ModelUnavailable):
    """An answer may have been paid for, but how much it used cannot be known."""


class Permanent(SupportError):
    """Would fail the same way again: dead-lettered at once."""


class Undecodable(Permanent):
    """The record's bytes are not an event of its topic."""


class UnknownSchemaVersion(Undecodable):
    """The record names a schema version this code does not read."""


class ContractBroken(Permanent):
    """An event or a step says something the contract does not allow."""


class UnknownTenant(Permanent):
    """The tenant is not one of those this installation serves (`SWITCHYARD_TENANTS`)."""


class UnknownTicket(ContractBroken):
    """A handoff or a command names a ticket that nobody stored."""


class TenantMismatch(Permanent):
    """A record names a known ticket under another tenant."""


class ModelRefused(Permanent):
    """The provider refuses the request itself (400, 401, 403, 404, 413, 422)."""


class ModelKeyRefused(ModelRefused):
    """The provider refuses the key: it is unknown or may not do this (401, 403), or its quota is used up."""

    def __init__(self, message: str, *, quota: bool = False) -> None:
        super().__init__(message)
        self.quota = quota  # money may help, and until then nothing


class ModelDenied(Permanent):
    """No model may be asked, or none answers, and the agent wants a person to decide instead."""


class BudgetSpent(ModelDenied):
    """A budget has no room for the call."""


class RecordingMissing(Permanent):
    """Only recorded answers are given, and none was recorded for this request."""


class ModelAnswerUnusable(Permanent):
    """The answer was malformed, empty, outside the closed set or too long, also after one repair.

    `calls` are the paid calls behind it: an agent that hands the round to a person keeps their cost.
    """

    def __init__(self, message: str, *, calls: Sequence["ModelCall"]) -> None:
        super().__init__(message)
        self.calls = tuple(calls)


class EffectRefused(Permanent):
    """The shop's own rows no longer allow the effect; nothing was changed."""


class EffectInDoubt(EffectRefused):
    """Nobody can say whether the effect has happened, and it is not to happen twice: a person looks."""


class Misconfigured(SupportError):
    """A setting, extra, topic or credential is missing or wrong: ends the process at start-up."""


class EngineStuck(SupportError):
    """No progress where there is lag, nor with a new Kafka client: ends the process, so that another takes over."""
