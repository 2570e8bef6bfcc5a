"""Replays for operators: a window of a topic, or a ticket from a step on, decided again and compared."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from agents.prompts import load_prompt, parse_prompt
from bus.codec import Codec
from bus.window import Bound, read_window
from contracts.errors import Misconfigured, SupportError, Undecodable
from contracts.events import Event
from contracts.topics import CATALOGUE, INBOX_OF_GROUP, Topic
from ops.moments import ago, by_partition
from ops.replay.answers import NotedRecordings, Till, live_where_missing, recorded_only
from ops.replay.compare import Compared, compared
from ops.replay.desks import Staff, staff_of
from ops.replay.gold import judged, read_gold
from ops.replay.inputs import Plan, plan
from ops.replay.meanwhile import meanwhile
from ops.replay.parties import parties
from ops.replay.report import Report
from ops.replay.run import Run
from ops.settings import Settings
from ops.wiring import AGENTS, database, kafka_connection
from state.past import Life, PostgresPast
from state.postgres_tickets import PostgresTickets
from state.recordings import PostgresRecordings
from state.reviews import PostgresReviews
from state.shadow import Shadow, open_shadow

if TYPE_CHECKING:
    from agents.prompts import Prompt

_NOBODY = "http://stand-in.invalid"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What decides in place of what decided: the code at hand, with these in place of its own."""

    prompt: Path | None = None  # its front matter names the agent
    model: str | None = None  # provider:model, for every paid tier
    agent_version: str | None = None  # one that the code at hand must have
    live_usd: Decimal | None = None  # what may be spent where nothing is recorded; None: nothing may

    def __str__(self) -> str:
        """For a report's head."""
        own = [f"prompt {self.prompt}"] * (self.prompt is not None) + [f"model {self.model}"] * (self.model is not None)
        return " and ".join(own) or "the code and prompts at hand"


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a topic; None: of every ticket, of every tenant."""

    topic: str
    start: Bound
    end: Bound
    ticket_id: str | None = None
    tenant_id: str | None = None


@dataclass(slots=True)
class _Read:
    """What was found in a window."""

    events: dict[str, Event] = field(default_factory=dict)
    unreadable: int = 0

    @property
    def of_tickets(self) -> Mapping[str, Sequence[str]]:
        """The events' ids by ticket id."""
        found: dict[str, list[str]] = {}
        for event in self.events.values():
            found.setdefault(event.ticket_id, []).append(event.id)
        return found


def bound(text: str, option: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Bound:
    """Where a window begins or ends: earliest, latest, a time, -2h, an offset, or 0:17,3:4 by partition.

    Raises Misconfigured, naming the option.
    """
    if text in ("earliest", "latest"):
        return Bound(latest=text == "latest")
    if at := ago(text, now=now()):
        return Bound(time=at)
    if text.isdecimal():
        return Bound(offset=int(text))
    if (offsets := by_partition(text)) is not None:
        return Bound(offsets=offsets)
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(
            f"{option} {text!r} is none of: earliest, latest, 2026-01-31T09:00, -2h, an offset, 0:17,3:4 by partition"
        ) from None
    return Bound(time=time_ if time_.tzinfo else time_.replace(tzinfo=UTC))


async def replay(window: Window, candidate: Candidate, gold: Path | None, settings: Settings) -> Report:
    """Decide a window's tickets again.

    Raises Misconfigured: there is no such topic, window, prompt or model. SupportError: nothing lies in the window.
    """
    topic = _inbox(window.topic)
    golden = read_gold(gold) if gold else None
    read = await _read(window, topic, settings)
    if not read.events and not read.unreadable:
        raise SupportError(f"no record{_whose(window)} lies between --from and --to in {topic.name}")
    what = f"{len(read.events)} records of {topic.name}"
    report = await _replayed(what, read.of_tickets, read.events, candidate, settings)
    report = replace(report, records=len(read.events), unreadable=read.unreadable)
    return replace(report, gold=judged(report.tickets, golden)) if golden is not None else report


async def replay_ticket(ticket_id: str, step: str, candidate: Candidate, settings: Settings) -> Report:
    """Decide one ticket again from a step on: its number in the ticket's history, from 1, or its event's id.

    Raises SupportError: there is no such ticket. Misconfigured: it has no such step.
    """
    async with database(settings) as pool:
        life = (await PostgresPast(pool).lives([ticket_id])).get(ticket_id)
    if life is None:
        raise SupportError(f"there is no ticket {ticket_id!r} (its record may still wait in support.tickets.v1)")
    events = _from_step(life, step)
    return await _replayed(f"ticket {ticket_id} from step {step}", {ticket_id: events}, {}, candidate, settings)


def _from_step(life: Life, step: str) -> Sequence[str]:
    """The ids of the events from a step on."""
    ids = [one.event_id for one in life.steps]
    place = int(step) - 1 if step.isdecimal() else ids.index(step) if step in ids else -1
    if not 0 <= place < len(ids):
        told = "; ".join(f"{n} {one.group} {one.type}" for n, one in enumerate(life.steps, 1))
        raise Misconfigured(f"ticket {life.ticket.ticket_id} has no step {step}; its steps are {told}")
    return ids[place:]


def _whose(window: Window) -> str:
    named = {"ticket": window.ticket_id, "tenant": window.tenant_id}
    return "".join(f" of {what} {name}" for what, name in named.items() if name is not None)


def _inbox(name: str) -> Topic:
    inboxes = [topic for topic in CATALOGUE if topic in INBOX_OF_GROUP.values()]
    found = next((topic for topic in inboxes if topic.name == name), None)
    if found is None:
        names = ", ".join(topic.name for topic in inboxes)
        raise Misconfigured(f"{name} is no topic that an agent reads; those are {names}")
    return found


async def _read(window: Window, topic: Topic, settings: Settings) -> _Read:
    codec, read = Codec(settings.agents.default_deadline), _Read()
    async for record in read_window(kafka_connection(settings.kafka), topic.name, window.start, window.end):
        try:
            event = codec.decode(topic, record)
        except Undecodable:
            read.unreadable += 1
            continue
        if window.ticket_id in (None, event.ticket_id) and window.tenant_id in (None, event.tenant_id):
            read.events.setdefault(event.id, event)
    return read


async def _replayed(
    what: str,
    windows: Mapping[str, Collection[str]],
    records: Mapping[str, Event],
    candidate: Candidate,
    settings: Settings,
) -> Report:
    began = time.monotonic()
    async with database(settings) as pool:
        lives = await PostgresPast(pool).lives(list(windows))
    found = {ticket_id: plan(life, windows[ticket_id], records) for ticket_id, life in lives.items()}
    plans = [one for one in found.values() if one is not None and one.inputs]
    settled = {step.event_id for life in lives.values() for step in life.steps}
    report = Report(
        what=what,
        candidate=str(candidate),
        tickets=(),
        records=0,
        unhandled=sum(event_id not in settled for ids in windows.values() for event_id in ids),
        unreadable=0,
        warnings=(),
        elapsed_s=0.0,
        lived_s=_lived_s(plans),
    )
    if not plans:
        return report
    as_of = min(one.began for one in plans)
    dsn = settings.postgres.dsn.get_secret_value()
    async with open_shadow(dsn, settings.shop_of, as_of) as shadow:
        tickets = await _run(plans, candidate, settings, shadow)
        warnings = await _warnings(shadow, as_of)
    return replace(report, tickets=tickets, warnings=warnings, elapsed_s=time.monotonic() - began)


def _without_a_key(settings: Settings, candidate: Candidate) -> Settings:
    """Recordings need no provider. Where none is set, it was the stand-in of an embedded stack that answered."""
    llm = settings.llm
    if candidate.live_usd is not None or llm.anthropic_api_key or llm.openai_api_key or llm.standin_url:
        return settings
    return settings.model_copy(update={"llm": llm.model_copy(update={"standin_url": _NOBODY})})


async def _run(plans: Sequence[Plan], candidate: Candidate, settings: Settings, shadow: Shadow) -> list[Compared]:
    settings = _without_a_key(settings, candidate)
    till = Till()
    recordings = NotedRecordings(PostgresRecordings(shadow.live), till)
    ids = [one.life.ticket.ticket_id for one in plans]
    around = await meanwhile(shadow, settings.shop_of, min(one.began for one in plans), ids)
    async with contextlib.AsyncExitStack() as open_until_end:
        base = await staff_of(settings, shadow.pool, recorded_only(recordings), open_until_end)
        chosen = await _chosen(candidate, base, settings, shadow, recordings, open_until_end)
        _check_version(candidate, {agent.version for agent in chosen.values()})
        tickets, reviews = PostgresTickets(shadow.pool), PostgresReviews(shadow.pool)
        run = Run(base, chosen, tickets, reviews, till, around.until, parties(plans, settings.shop_of))
        reruns = await run.run(plans)
    return [compared(reruns[ticket_id]) for ticket_id in sorted(reruns)]


async def _chosen(
    candidate: Candidate,
    base: Staff,
    settings: Settings,
    shadow: Shadow,
    recordings: NotedRecordings,
    open_until_end: contextlib.AsyncExitStack,
) -> Staff:
    """The staff that decides the window."""
    prompts, settings, opened = _prompts(candidate), _with_model(settings, candidate), recorded_only(recordings)
    if candidate.live_usd is not None:
        opened = live_where_missing(recordings, candidate.live_usd, is_new=candidate.model is not None)
    elif prompts is None:
        return base
    return await staff_of(settings, shadow.pool, opened, open_until_end, prompts)


def _with_model(settings: Settings, candidate: Candidate) -> Settings:
    if candidate.model is None:
        return settings
    if candidate.live_usd is None:
        raise Misconfigured(f"nothing is recorded of another model: --model {candidate.model} needs --live-model")
    if not re.fullmatch(r"(anthropic|openai):[^,]+", candidate.model):
        raise Misconfigured(f"--model {candidate.model!r} should look like anthropic:NAME or openai:NAME")
    llm = settings.llm.model_copy(update={"fast": candidate.model, "strong": candidate.model})
    return settings.model_copy(update={"llm": llm})


def _prompts(candidate: Candidate) -> Callable[[str], Prompt] | None:
    file = candidate.prompt
    if file is None:
        return None
    try:
        own = parse_prompt(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from error
    if own.name not in AGENTS:
        raise Misconfigured(f"{file} is for the agent {own.name!r}; the agents are {', '.join(AGENTS)}")
    return lambda name: own if name == own.name else load_prompt(name)


def _check_version(candidate: Candidate, versions: Collection[str]) -> None:
    wanted = candidate.agent_version
    if wanted is not None and wanted not in versions:
        raise Misconfigured(
            f"the code at hand is not the agent version {wanted} but {', '.join(sorted(versions))}; "
            "run the replay from a check-out of that version"
        )


async def _warnings(shadow: Shadow, as_of: datetime) -> Sequence[str]:
    told = []
    if shadow.not_put_back:
        told.append(f"{shadow.not_put_back} effects since then cannot be undone: what they found was not kept")
    if shops := await PostgresPast(shadow.live).reloaded(as_of):
        told.append(f"the rows of {', '.join(shops)} were loaded anew since then: the new ones were shown")
    return told


def _lived_s(plans: Sequence[Plan]) -> float:
    began = [step.began for one in plans for step in one.steps.values()]
    return (max(began) - min(began)).total_seconds() if began else 0.0
