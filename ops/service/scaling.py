"""Scaling: how many workers each agent is to have, and the supervisor that keeps them up."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contracts.control import Scale
from contracts.errors import Misconfigured
from contracts.ports import Scales
from ops.posts import Command, Patience
from ops.settings import Settings
from ops.supervisor import CLOSING_S, Supervisor, run_worker, supervising
from ops.wiring import AGENTS, database, wired
from state.scales import PostgresScales


@dataclass(frozen=True, slots=True)
class Scaled:
    """How many workers an agent is to have from now on, and had before; None: nobody had said."""

    agent: str
    workers: int
    before: int | None
    by: str
    reason: str
    dry_run: bool

    def as_document(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return asdict(self)


async def scale(
    agent: str, workers: int, settings: Settings, *, by: str, reason: str = "", dry_run: bool = False
) -> Scaled:
    """Have so many workers of an agent. Raises Misconfigured: no such agent, or more than its topic has partitions."""
    most = wired(agent).reads.partitions
    if workers > most:
        raise Misconfigured(
            f"{workers} workers of {agent} are too many: its topic has {most} partitions, so the others would idle"
        )
    async with database(settings) as pool:
        scales: Scales = PostgresScales(pool)
        before = (await scales.wanted()).get(agent)
        if not dry_run and before != workers:
            await scales.decide(Scale(agent, workers, by, reason))
    return Scaled(agent, workers, before, by, reason, dry_run)


async def decisions(agent: str | None, settings: Settings, *, limit: int = 20) -> Sequence[Scale]:
    """The last decisions about an agent or about all, newest first. Raises Misconfigured: there is no such agent."""
    if agent is not None:
        wired(agent)
    async with database(settings) as pool:
        return await PostgresScales(pool).decisions(agent, limit=limit)


async def supervise(
    folder: Path, at_first: int, settings: Settings, stopping: asyncio.Event, looked: Callable[[], None]
) -> None:
    """Keep the workers up that are wanted, `at_first` of each agent until somebody decides; drain them at the end.

    Raises Misconfigured: another supervisor is at work in the folder.
    """
    async with database(settings) as pool:
        with supervisor_of(folder, at_first, settings, PostgresScales(pool)) as supervisor:
            await supervisor.run(stopping, looked)


@contextlib.contextmanager
def supervisor_of(
    folder: Path,
    at_first: int,
    settings: Settings,
    scales: Scales,
    *,
    command: Command = run_worker,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Supervisor]:
    """The one supervisor of a folder: it keeps what was decided, `at_first` of each agent until somebody decides.

    Raises Misconfigured: another supervisor is at work there.
    """

    async def wanted() -> Mapping[str, int]:
        decided = await scales.wanted()
        return {agent: decided.get(agent, at_first) for agent in AGENTS}

    patience = Patience(stop_within_s=settings.agents.drain_timeout_s + CLOSING_S)
    with supervising(folder):
        yield Supervisor(folder, wanted, patience, command=command, environment=environment)
