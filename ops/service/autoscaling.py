"""Autoscaling at work: measures each agent, decides, and keeps what changed with what it was decided from."""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bus.lease import Lease
from contracts.control import Scale
from contracts.errors import Misconfigured, Outage, SupportError
from contracts.ports import Leases, Scales
from ops.autoscale import Decision, Goal, Lag, Memory, Raise, Room, decide
from ops.service.lag import AgentLag, Look, watching
from ops.service.room import rooms
from ops.settings import PREFIX, AutoscaleSettings, Settings
from ops.wiring import AGENTS, agents_named, database, wired
from state.leases import PostgresLeases
from state.scales import PostgresScales

BY = "autoscale"
_FRESH_S = 60.0  # older advice is of an autoscaler that is not at work
_LEASE_S = 15.0  # until another autoscaler goes on where one was killed

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Autoscaler:
    """Decides for each agent that has a goal. A supervisor, or an orchestrator, does what it decides."""

    goals: Mapping[str, Goal]
    scales: Scales
    measure: Callable[[str], Awaitable[Lag]]
    room: Callable[[str], Awaitable[Room]]
    is_my_turn: Callable[[str], Awaitable[bool]]  # about an agent; False: another autoscaler decides
    at_first: int = 1  # workers of an agent that nobody decided about
    clock: Callable[[], float] = time.monotonic
    _memories: dict[str, Memory] = field(default_factory=dict)
    _last: dict[str, Decision] = field(default_factory=dict)

    async def run(self, every_s: float = 5.0) -> None:
        """Decide again and again, until cancelled. What cannot be measured stays as it is."""
        while True:
            for agent in self.goals:
                try:
                    await self._take_turn(agent)
                except Outage as error:
                    _log.warning("%s is not scaled for now: %s", agent, error)
            await asyncio.sleep(every_s)

    async def look_at(self, agent: str) -> Decision:
        """Decide about one agent; a number that changed is kept, and what holds more back now and did not before.

        Raises Outage: nothing was decided.
        """
        lag, room = await self.measure(agent), await self.room(agent)
        workers = (await self.scales.wanted()).get(agent, self.at_first)
        memory = await self._remembered(agent, workers)
        decision, self._memories[agent] = decide(self.clock(), workers, lag, room, self.goals[agent], memory)
        scale = Scale(agent, decision.workers, BY, decision.reason, decision.inputs)
        held_before = self._last[agent].held_by if agent in self._last else ""
        if decision.workers != workers or decision.held_by not in ("", held_before):
            await self.scales.decide(scale)
        await self.scales.advise(scale)
        if agent not in self._last or self._last[agent].reason != decision.reason:
            _log.info("%s: %s", agent, decision.reason, extra={"inputs": decision.inputs})
        self._last[agent] = decision
        return decision

    async def _take_turn(self, agent: str) -> None:
        if await self.is_my_turn(agent):
            await self.look_at(agent)
        else:  # what the other one does meanwhile is not known here
            self._memories.pop(agent, None)
            self._last.pop(agent, None)

    async def _remembered(self, agent: str, workers: int) -> Memory:
        """What is known of an agent; a number that somebody else set is watched as if it were the first."""
        if agent not in self._memories:
            return Memory(raised=await self._raised(agent))
        if self._last[agent].workers != workers:
            return replace(self._memories[agent], wishes=(), begun_s=None, raised=None, ceiling=None)
        return self._memories[agent]

    async def _raised(self, agent: str) -> Raise | None:
        """The workers that an autoscaler before this one asked for a moment ago: they are still to show their worth."""
        for last in await self.scales.decisions(agent, limit=1):
            age_s = (datetime.now(UTC) - last.at).total_seconds() if last.at else math.inf
            before = last.inputs.get("workers", last.workers)
            if last.workers > before > 0 and age_s < self.goals[agent].settle_s:
                return Raise(self.clock() - age_s, before, last.inputs["pace_per_s"])
        return None


# --- on real services -------------------------------------------------------------------------------------


@dataclass(slots=True)
class LagLooks:
    """Looks at agents' lag again and again: over the same connections, until an outage costs them."""

    settings: Settings
    _open: dict[str, tuple[AsyncExitStack, Look]] = field(default_factory=dict)

    async def of(self, agent: str) -> AgentLag:
        """An agent's lag now. Raises Outage: Kafka or the database is away."""
        if agent not in self._open:
            self._open[agent] = await self._opened(agent)
        try:
            [lag] = await self._open[agent][1]()
        except Outage:
            await self._close(agent)
            raise
        return lag

    async def close(self) -> None:
        """Let all connections go."""
        for agent in list(self._open):
            await self._close(agent)

    async def _opened(self, agent: str) -> tuple[AsyncExitStack, Look]:
        async with AsyncExitStack() as stack:
            look = await stack.enter_async_context(watching([agent], self.settings))
            return stack.pop_all(), look

    async def _close(self, agent: str) -> None:
        stack, _ = self._open.pop(agent)
        await stack.aclose()


@dataclass(frozen=True, slots=True)
class Unkept:
    """Scales of a trial: read, and never written."""

    scales: Scales

    async def decide(self, scale: Scale) -> None:
        """Keep nothing."""

    async def advise(self, scale: Scale) -> None:
        """Keep nothing."""

    async def wanted(self) -> Mapping[str, int]:
        """How many workers each agent is to have."""
        return await self.scales.wanted()

    async def decisions(self, agent: str | None, *, limit: int) -> Sequence[Scale]:
        """The last decisions, newest first."""
        return await self.scales.decisions(agent, limit=limit)

    async def advice(self, agent: str) -> Scale | None:
        """What was found right for an agent last."""
        return await self.scales.advice(agent)


async def run_autoscaler(
    agent: str | None, settings: Settings, stopping: asyncio.Event, ready: Callable[[], None], *, dry_run: bool = False
) -> None:
    """Decide about an agent, or about all, until `stopping`; `dry_run`: log what would be decided, and keep nothing.

    However many run with one database, one of them decides about an agent. Calls `ready` once it is at work, or waits
    for its turn.
    """
    goals = goals_of(agent, settings.autoscale)
    async with _autoscaler(goals, settings, dry_run=dry_run) as autoscaler:
        deciding = asyncio.create_task(autoscaler.run(settings.autoscale.every_s))
        asked_to_stop = asyncio.create_task(stopping.wait())
        ready()
        try:
            await asyncio.wait({deciding, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            if deciding.done():
                await deciding  # only an error ends it
        finally:
            deciding.cancel()
            asked_to_stop.cancel()
            await asyncio.wait({deciding, asked_to_stop})


@asynccontextmanager
async def _autoscaler(goals: Mapping[str, Goal], settings: Settings, *, dry_run: bool) -> AsyncIterator[Autoscaler]:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database(settings))
        found = await stack.enter_async_context(rooms(settings, pool))
        looks = LagLooks(settings)
        stack.push_async_callback(looks.close)
        scales: Scales = PostgresScales(pool)
        if dry_run:
            yield Autoscaler(goals, Unkept(scales), looks.of, found.of, _always)
            return
        turns = Turns(PostgresLeases(pool), goals, max(_LEASE_S, 3 * settings.autoscale.every_s))
        stack.push_async_callback(turns.give_back)
        yield Autoscaler(goals, scales, looks.of, found.of, turns.is_mine)


class Turns:
    """Who decides about which agent: a lease for each."""

    def __init__(self, leases: Leases, agents: Iterable[str], lease_s: float) -> None:
        owner = str(uuid.uuid4())
        self._leases = {agent: Lease(leases, f"autoscale/{agent}", owner, lease_s=lease_s) for agent in agents}

    async def is_mine(self, agent: str) -> bool:
        """Whether nobody else decides about an agent; asks for the lease. Raises StoreUnavailable."""
        return await self._leases[agent].held()

    async def give_back(self) -> None:
        """Let others go on at once."""
        for lease in self._leases.values():
            await lease.give_back()


async def _always(_agent: str) -> bool:
    return True


def goals_of(agent: str | None, settings: AutoscaleSettings) -> Mapping[str, Goal]:
    """The goal of an agent, or of each. Raises Misconfigured: there is no such agent, or a goal contradicts itself."""
    if unknown := settings.agents.keys() - AGENTS.keys():
        raise Misconfigured(
            f"{PREFIX}AUTOSCALE__AGENTS names {', '.join(sorted(unknown))}; the agents are {', '.join(AGENTS)}"
        )
    goals = {name: settings.goal_of(name) for name in agents_named(agent)}
    for name, goal in goals.items():
        if goal.fewest > goal.most:
            raise Misconfigured(
                f"{name} is to have at least {goal.fewest} workers and at most {goal.most}: "
                f"see {PREFIX}AUTOSCALE__FEWEST and {PREFIX}AUTOSCALE__MOST"
            )
    return goals


@dataclass(frozen=True, slots=True)
class Advice:
    """How many workers are right for an agent, as somebody found who is at work now, whichever process asks."""

    agent: str
    workers: int
    reason: str
    at: datetime
    inputs: Mapping[str, Any]

    def as_document(self) -> dict[str, Any]:
        """One JSON object: for KEDA's metrics-api scaler, `valueLocation: workers`."""
        return asdict(self) | {"at": self.at.isoformat()}


async def advice(agent: str, settings: Settings) -> Advice:
    """What the autoscaler last found right for an agent, whether that changed anything or not.

    Raises Misconfigured: there is no such agent. SupportError: no autoscaler is at work, so nobody knows.
    """
    wired(agent)
    async with database(settings) as pool:
        return fresh_advice(agent, await PostgresScales(pool).advice(agent), settings.autoscale.every_s)


def fresh_advice(agent: str, kept: Scale | None, every_s: float) -> Advice:
    """The advice that is kept. Raises SupportError: there is none, or it is of an autoscaler that has stopped."""
    if kept is None or kept.at is None:
        raise SupportError(f"nobody looked at {agent} yet: `switchyard autoscale --run` does")
    silent_s = (datetime.now(UTC) - kept.at).total_seconds()
    if silent_s > max(_FRESH_S, 4 * every_s):
        raise SupportError(f"nobody has looked at {agent} for {silent_s:.0f} s: `switchyard autoscale --run` does")
    return Advice(agent, kept.workers, kept.reason, kept.at, kept.inputs)


async def advices(settings: Settings) -> Sequence[Scale]:
    """What was found right for each agent when somebody last looked, however long ago."""
    async with database(settings) as pool:
        found = [await PostgresScales(pool).advice(agent) for agent in AGENTS]
    return [scale for scale in found if scale is not None]
