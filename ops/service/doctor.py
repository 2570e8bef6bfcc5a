"""Looks at everything the system stands on, and says of each fault what mends it. Changes nothing."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from contracts.errors import ModelKeyRefused, SupportError
from ops.greeting import Greeting, greetings
from ops.service.doctor_agents import of_agents
from ops.service.doctor_kafka import of_kafka
from ops.service.findings import MOST_SKEW_S, Finding, Severity, ago
from ops.settings import PREFIX, Settings
from state.redis_calls import RedisCalls, Script
from state.vitals import Vitals, read_vitals

_OLDEST_OUTBOX_S = 60.0  # the relay publishes within milliseconds
_OVERDUE_S = 60.0  # the scheduler resumes within a tenth of a second
_NEEDED = frozenset({"postgres", "migrations", "kafka"})

_TIME = Script("return redis.call('TIME')")


async def examine(settings: Settings) -> Sequence[Finding]:
    """Look at everything, for some seconds; a thing that is away hides nothing of the others."""
    found = [*await _models(settings), *await _redis(settings)]
    vitals = await _vitals(settings)
    found += [vitals] if isinstance(vitals, Finding) else _database(vitals)
    found += [finding async for finding in of_kafka(settings)]
    if isinstance(vitals, Vitals) and not any(_is_needed(one) for one in found):
        held = {one.group: one for one in vitals.held}
        found += [finding async for finding in of_agents(settings, held)]  # would bring the schema up to date
    return found


def _is_needed(finding: Finding) -> bool:
    return finding.severity is Severity.FAULT and finding.about in _NEEDED


# --- models -----------------------------------------------------------------------------------------------


async def _models(settings: Settings) -> Sequence[Finding]:
    try:
        greeted = await greetings(settings.llm)
    except SupportError as error:
        mend = f"set {PREFIX}LLM__STANDIN_URL or a provider's API key"
        return [Finding(Severity.FAULT, "models", str(error), mend)]
    odd = [_of_greeting(one, one.error) for one in greeted if one.error is not None]
    return odd or [Finding(Severity.FINE, "models", f"each tier has a model, and {len(greeted)} keys are taken")]


def _of_greeting(greeting: Greeting, error: SupportError) -> Finding:
    about, variable = f"models of {greeting.provider}", f"{PREFIX}LLM__{greeting.provider.upper()}_API_KEY"
    if isinstance(error, ModelKeyRefused):
        says = f"the key that ends with {greeting.tail} is refused: {error}"
        return Finding(Severity.FAULT, about, says, f"set {variable} to a key that is good")
    mend = f"look at the provider's status, at this machine's network and proxy, and at {PREFIX}LLM__ settings of URLs"
    return Finding(Severity.FAULT, about, str(error), mend)


# --- stores -----------------------------------------------------------------------------------------------


async def _redis(settings: Settings) -> Sequence[Finding]:
    try:
        async with RedisCalls.open(settings.redis.url.get_secret_value()) as calls:
            seconds, microseconds = await calls.run(_TIME, ())
    except SupportError as error:
        mend = f"start it, or set {PREFIX}REDIS__URL; until then caches, budgets and limits cost more"
        return [Finding(Severity.WARNING, "redis", str(error), mend)]
    theirs = datetime.fromtimestamp(int(seconds) + int(microseconds) / 1e6, UTC)
    return [Finding(Severity.FINE, "redis", "it answers"), *of_clock("Redis", theirs, datetime.now(UTC))]


async def _vitals(settings: Settings) -> Vitals | Finding:
    try:
        return await read_vitals(settings.postgres.dsn.get_secret_value(), overdue_after_s=_OVERDUE_S)
    except SupportError as error:
        return Finding(Severity.FAULT, "postgres", str(error), f"start it, or set {PREFIX}POSTGRES__DSN")


def _database(vitals: Vitals) -> Iterator[Finding]:
    yield Finding(Severity.FINE, "postgres", "it answers")
    yield from _of_schema(vitals)
    yield from of_clock("the database", vitals.now, vitals.asked_at)
    yield from _of_work(vitals)


def _of_schema(vitals: Vitals) -> Iterator[Finding]:
    if vitals.missing:
        says = f"{len(vitals.missing)} migrations are missing, {vitals.missing[0]} first"
        yield Finding(Severity.FAULT, "migrations", says, "start any worker (`switchyard run AGENT`): it applies them")
        if not vitals.may_create:
            mend = f"GRANT CREATE ON SCHEMA public TO the role of {PREFIX}POSTGRES__DSN"
            yield Finding(Severity.FAULT, "postgres rights", "the role may not create tables", mend)
    if vitals.is_ahead:
        says = "the database is of a later version than this code"
        yield Finding(Severity.WARNING, "migrations", says, "install the version that the workers run")


def of_clock(whose: str, theirs: datetime, ours: datetime) -> Iterator[Finding]:
    """Whether this machine's clock and another one differ by more than a look takes."""
    skew_s = (ours - theirs).total_seconds()
    if abs(skew_s) > MOST_SKEW_S:
        says = f"this machine is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} {whose}"
        yield Finding(Severity.WARNING, "clock", says, "run an NTP client on both, such as chronyd")


def _of_work(vitals: Vitals) -> Iterator[Finding]:
    if vitals.oldest_outbox_s > _OLDEST_OUTBOX_S:
        says = f"{vitals.outbox_rows} records wait to be published, the oldest for {ago(vitals.oldest_outbox_s)}"
        mend = "start a worker of any agent (`switchyard run AGENT`): it takes over what a dead one left"
        yield Finding(Severity.FAULT, "outbox", says, mend)
    if vitals.overdue:
        says = f"{vitals.overdue} parked tickets are past due, one for {ago(vitals.most_overdue_s)}"
        yield Finding(Severity.FAULT, "parked", says, "start a worker of that agent: `switchyard lag` shows which")
    for budget, level in vitals.spent.items():
        mend = f"`switchyard cost` shows what for; {PREFIX}LLM__BUDGETS raises it"
        says = "was used up" if level >= 100 else f"was used to {level} %"
        yield Finding(Severity.WARNING, "budget", f"the budget of {budget} {says} within a day", mend)
