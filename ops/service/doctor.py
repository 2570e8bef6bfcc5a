"""Looks at everything the system stands on, and says of each fault what mends it. Changes nothing."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from contracts.control import Mode
from contracts.errors import SupportError
from contracts.values import Tier
from ops.service.lag import AgentLag, lag_now
from ops.service.topics import drifted
from ops.settings import PREFIX, Settings
from ops.wiring import AGENTS
from state.redis_calls import RedisCalls, Script
from state.vitals import Vitals, read_vitals

_MOST_SKEW_S = 2.0
_OLDEST_OUTBOX_S = 60.0  # the relay publishes within milliseconds
_OVERDUE_S = 60.0  # the scheduler resumes within a tenth of a second
_STUCK_AFTER_S = 120.0  # longer than a pace is taken over, and than a model call
_NEEDED = frozenset({"postgres", "migrations", "kafka"})
_REBALANCING = frozenset({"PreparingRebalance", "CompletingRebalance"})

_PING = Script("return 1")


class Severity(IntEnum):
    """How bad it is; the exit code of `switchyard doctor` follows the worst."""

    FINE = 0
    WARNING = 1  # it works, but not as it should, or not for long
    FAULT = 2  # something does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend`: the command or setting that mends it."""

    severity: Severity
    about: str
    says: str
    mend: str = ""


Examine = Callable[[Settings], AsyncIterator[Finding]]


async def examine(settings: Settings) -> Sequence[Finding]:
    """Look at everything; a thing that is away hides nothing of the others."""
    checks: Sequence[Examine] = (_models, _redis, _database, _topics)
    found = [finding for check in checks async for finding in check(settings)]
    if not any(one.severity is Severity.FAULT and one.about in _NEEDED for one in found):
        found += [finding async for finding in _agents(settings)]  # which would bring the schema up to date
    return found


async def _models(settings: Settings) -> AsyncIterator[Finding]:
    try:
        for tier in (Tier.FAST, Tier.STRONG):
            settings.llm.models_of(tier)
    except SupportError as error:
        yield Finding(Severity.FAULT, "models", str(error), f"set {PREFIX}LLM__STANDIN_URL or a provider's API key")
    else:
        yield Finding(Severity.FINE, "models", "each tier has a model with a key")


async def _redis(settings: Settings) -> AsyncIterator[Finding]:
    try:
        async with RedisCalls.open(settings.redis.url.get_secret_value()) as calls:
            await calls.run(_PING, ())
    except SupportError as error:
        mend = f"start it, or set {PREFIX}REDIS__URL; until then caches, budgets and limits cost more"
        yield Finding(Severity.WARNING, "redis", str(error), mend)
    else:
        yield Finding(Severity.FINE, "redis", "it answers")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    try:
        vitals = await read_vitals(settings.postgres.dsn.get_secret_value(), overdue_after_s=_OVERDUE_S)
    except SupportError as error:
        yield Finding(Severity.FAULT, "postgres", str(error), f"start it, or set {PREFIX}POSTGRES__DSN")
        return
    found = [*_of_schema(vitals), *_of_clock(vitals.now, datetime.now(UTC)), *_of_work(vitals)]
    yield Finding(Severity.FINE, "postgres", "it answers")
    for finding in found:
        yield finding


def _of_schema(vitals: Vitals) -> Iterator[Finding]:
    if vitals.missing:
        says = f"{len(vitals.missing)} migrations are missing, {vitals.missing[0]} first"
        yield Finding(Severity.FAULT, "migrations", says, "start any worker (`switchyard run AGENT`): it applies them")
        if not vitals.may_create:
            mend = "GRANT CREATE ON SCHEMA public TO the role of SWITCHYARD_POSTGRES__DSN"
            yield Finding(Severity.FAULT, "postgres rights", "the role may not create tables", mend)
    if vitals.is_ahead:
        says = "the database is of a later version than this code"
        yield Finding(Severity.WARNING, "migrations", says, "install the version that the workers run")


def _of_clock(theirs: datetime, ours: datetime) -> Iterator[Finding]:
    skew_s = (ours - theirs).total_seconds()
    if abs(skew_s) > _MOST_SKEW_S:
        says = f"this machine is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} the database"
        yield Finding(Severity.WARNING, "clock", says, "run an NTP client on both, such as chronyd")


def _of_work(vitals: Vitals) -> Iterator[Finding]:
    if vitals.oldest_outbox_s > _OLDEST_OUTBOX_S:
        says = f"{vitals.outbox_rows} records wait to be published, the oldest for {vitals.oldest_outbox_s:.0f} s"
        mend = "start a worker of any agent (`switchyard run AGENT`): it takes over what a dead one left"
        yield Finding(Severity.FAULT, "outbox", says, mend)
    if vitals.overdue:
        says = f"{vitals.overdue} parked tickets are past due, one for {vitals.most_overdue_s:.0f} s"
        yield Finding(Severity.FAULT, "parked", says, "start a worker of that agent: `switchyard lag` shows which")
    for budget in vitals.spent:
        mend = f"`switchyard cost` shows what for; {PREFIX}LLM__BUDGETS raises it"
        yield Finding(Severity.WARNING, "budget", f"the budget of {budget} was used up within a day", mend)


async def _topics(settings: Settings) -> AsyncIterator[Finding]:
    address = settings.kafka.bootstrap_servers
    try:
        changes = await drifted(settings)
    except SupportError as error:
        mend = f"start it, or set {PREFIX}KAFKA__BOOTSTRAP_SERVERS and its credentials"
        yield Finding(Severity.FAULT, "kafka", f"{address}: {error}", mend)
        return
    yield Finding(Severity.FINE, "kafka", f"{address} answers")
    for change in changes:
        severity = Severity.FAULT if change.change == "to be created" else Severity.WARNING
        yield Finding(severity, f"topic {change.topic}", change.change, "`switchyard topics apply`")


async def _agents(settings: Settings) -> AsyncIterator[Finding]:
    """Each by itself: a missing topic of one hides nothing of the others."""
    for agent in AGENTS:
        try:
            [lag] = await lag_now([agent], settings)
        except SupportError:
            continue  # a topic of it is missing, or something went away just now: the former is said above
        for finding in of_agent(lag):
            yield finding


def of_agent(lag: AgentLag) -> Iterator[Finding]:
    """What is wrong with one agent's group."""
    about, work = f"agent {lag.agent}", lag.open + lag.waiting
    start = f"`switchyard run {lag.agent}`"
    if lag.held_up:
        ordered = any(worker.mode in (Mode.PAUSED, Mode.DRAINED) for worker in lag.workers)
        mend = f"`switchyard resume {lag.agent}`" if ordered else "mend what it names"
        yield Finding(Severity.WARNING, about, f"nothing new is started: {lag.held_up}", mend)
    elif lag.workers and not lag.group.members:
        says = f"its workers are out of the group, drained or sent away by a rewind, and {work} records to handle"
        yield Finding(Severity.WARNING, about, says, f"`switchyard resume {lag.agent}`; a rewind ends by itself")
    elif not lag.group.members:
        severity = Severity.FAULT if work else Severity.WARNING
        yield Finding(severity, about, f"it has no workers, and {work} records to handle", start)
    elif lag.group.state in _REBALANCING:
        says = "its group is dealing out its partitions; where that lasts, its workers come and go"
        yield Finding(Severity.WARNING, about, says, f"`switchyard lag {lag.agent} --watch`, and its workers' logs")
    elif work and lag.drain_s is None and lag.oldest_s > _STUCK_AFTER_S:
        says = f"nothing was settled lately, though {work} records wait, the oldest for {lag.oldest_s:.0f} s"
        yield Finding(Severity.FAULT, about, says, f"look at its workers' logs and restart them: {start}")
    else:
        yield Finding(Severity.FINE, about, f"{work} records to handle by {len(lag.group.members)} workers")
    if lag.dead_letters:
        says = f"{lag.dead_letters} tickets are stopped by dead letters, {lag.blocked} records wait behind them"
        yield Finding(Severity.WARNING, about, says, f"`switchyard dlt list --agent {lag.agent}`")
    for number in lag.unknown:
        says = f"partition {number} of {lag.topic} cannot be asked"
        yield Finding(Severity.FAULT, about, says, "look at the brokers: it may have no leader")
