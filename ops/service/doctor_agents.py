"""What the doctor sees of the agents: groups that stand still or never settle down, and workers that fell silent."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from bus.groups import Group, groups
from contracts.control import Mode, Seen
from contracts.errors import SupportError
from ops.service.control import THERE_WITHIN_S
from ops.service.findings import Finding, Severity, ago
from ops.service.lag import AgentLag, lag_now
from ops.settings import Settings
from ops.wiring import AGENTS, database, kafka_connection
from state.controls import PostgresControls
from state.vitals import Held

_STUCK_AFTER_S = 120.0  # longer than a pace is taken over, and than a model call
_LONG_AGO_S = 3600.0  # an order that holds a group for so long may have been forgotten
_SILENT_WITHIN_S = 600.0  # who said nothing for longer is no news
_LOOKS = 4
_LOOK_EVERY_S = 1.0
_STORM = 2  # of the looks; one change is a worker that starts or ends
_REBALANCING = frozenset({"PreparingRebalance", "CompletingRebalance"})


async def of_agents(settings: Settings, held: Mapping[str, Held]) -> AsyncIterator[Finding]:
    """Each by itself: a missing topic of one hides nothing of the others."""
    restless = await _restlessness(settings)
    for agent in AGENTS:
        try:
            [lag] = await lag_now([agent], settings)
            silent = await _silent(agent, settings)
        except SupportError:
            continue  # a topic of it is missing, or something went away just now: the former is said above
        for finding in (*of_agent(lag, held.get(agent), restless.get(agent, 0)), *of_silent(agent, silent)):
            yield finding


def of_agent(lag: AgentLag, held: Held | None = None, restless: int = 0) -> Iterator[Finding]:
    """What is wrong with one agent's group. `restless`: in how many looks it was another one than before."""
    about = f"agent {lag.agent}"
    yield _of_work(lag, held, restless)
    if lag.dead_letters:
        says = f"{lag.dead_letters} tickets are stopped by dead letters, {lag.blocked} records wait behind them"
        yield Finding(Severity.WARNING, about, says, f"`switchyard dlt list {lag.agent}`")
    for number in lag.unknown:
        says = f"partition {number} of {lag.topic} cannot be asked"
        yield Finding(Severity.FAULT, about, says, f"`switchyard topics describe {lag.topic}`: it may have no leader")


def _of_work(lag: AgentLag, held: Held | None, restless: int) -> Finding:
    about, work = f"agent {lag.agent}", lag.open + lag.waiting
    start = f"`switchyard run {lag.agent}`"
    if held is not None:
        return _of_held(held, work)
    if lag.workers and not lag.group.members and not lag.held_up:
        says = f"its workers are out of the group, as a rewind sends them, and {work} records to handle"
        return Finding(Severity.WARNING, about, says, f"a rewind ends by itself; else `switchyard resume {lag.agent}`")
    if not lag.group.members and not lag.workers:
        severity = Severity.FAULT if work else Severity.WARNING
        return Finding(severity, about, f"it has no workers, and {work} records to handle", start)
    if restless >= _STORM:
        says = f"its workers come and go: its group was another one in {restless} of {_LOOKS - 1} looks"
        mend = f"`switchyard lag {lag.agent} --watch`, and its workers' logs: they may be too slow, or short of memory"
        return Finding(Severity.WARNING, about, says, mend)
    if lag.held_up:
        ordered = any(worker.mode in (Mode.PAUSED, Mode.DRAINED) for worker in lag.workers)
        mend = f"`switchyard resume {lag.agent}`" if ordered else "mend what it names"
        return Finding(Severity.WARNING, about, f"nothing new is started: {lag.held_up}", mend)
    if work and lag.drain_s is None and lag.oldest_s > _STUCK_AFTER_S:
        says = f"nothing was settled lately, though {work} records wait, the oldest for {ago(lag.oldest_s)}"
        return Finding(Severity.FAULT, about, says, f"look at its workers' logs and restart them: {start}")
    return Finding(Severity.FINE, about, f"{work} records to handle by {len(lag.group.members)} workers")


def _of_held(held: Held, work: int) -> Finding:
    done = {"Pause": "paused", "Drain": "drained"}[held.kind]
    why = f" ({held.reason})" if held.reason else ""
    says = f"{done} {ago(held.age_s)} ago by {held.by or 'somebody'}{why}; {work} records wait"
    severity = Severity.WARNING if held.age_s > _LONG_AGO_S else Severity.FINE
    return Finding(severity, f"agent {held.group}", says, f"`switchyard resume {held.group}`")


def of_silent(agent: str, silent: Sequence[Seen]) -> Iterator[Finding]:
    """Workers that said something lately, and nothing since."""
    for one in silent:
        worker = one.presence
        says = (
            f"worker {worker.worker} has said nothing for {ago(one.silent_s)}: it was killed, is frozen, or lost the"
            " database"
        )
        mend = f"look for process {worker.process_id} on {worker.host}; `switchyard run {agent}` starts another"
        yield Finding(Severity.WARNING, f"agent {agent}", says, mend)


async def _silent(agent: str, settings: Settings) -> Sequence[Seen]:
    async with database(settings) as pool:
        lately = await PostgresControls(pool).workers(agent, within_s=_SILENT_WITHIN_S)
    return [one for one in lately if one.silent_s > THERE_WITHIN_S]


async def _restlessness(settings: Settings) -> Mapping[str, int]:
    """By agent: in how many looks its group was dealing out partitions, or had other members than before."""
    seen: dict[str, list[Group]] = {agent: [] for agent in AGENTS}
    try:
        async with groups(kafka_connection(settings.kafka)) as kafka:
            for nth in range(_LOOKS):
                await asyncio.sleep(_LOOK_EVERY_S if nth else 0)
                for agent, looks in seen.items():
                    looks.append(await kafka.describe(agent, AGENTS[agent].reads.name))
    except SupportError:
        return {}  # it went away just now, or does not let us look: that is said elsewhere
    return {agent: restlessness(looks) for agent, looks in seen.items()}


def restlessness(looks: Sequence[Group]) -> int:
    """In how many of these looks, after the first, a group was another one than before, or dealing out."""
    return sum(
        now.state in _REBALANCING or {one.id for one in now.members} != {one.id for one in before.members}
        for before, now in itertools.pairwise(looks)
    )
