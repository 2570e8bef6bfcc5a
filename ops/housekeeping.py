"""Housekeeping in the background of the workers: one of them at a time deletes what nobody can need any more."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from contracts.errors import Misconfigured, SupportError
from contracts.ports import Leases
from ops.settings import PREFIX, PostgresSettings
from state.housekeeping import Pruned, Retention

LEASE = "housekeeping"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Prunes once in a while, all workers together. A failure is logged, and tried again the next time.

    Who finished a round keeps the lease until the next one is due, so that no other worker begins it sooner.
    """

    prune: Callable[[Retention], Awaitable[Pruned]]
    leases: Leases
    keep: Retention
    every_s: float = 3600.0  # from the end of one round to the begin of the next
    look_every_s: float = 300.0  # whether the lease is to be had
    pause_s: float = 1.0  # between the parts of a round
    working_lease_s: float = 300.0  # for one part; it is over when a worker dies at it
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        wait_s = self.look_every_s
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # workers that started together look one by one
            try:
                wait_s = 2 * self.every_s if await self.round() else self.look_every_s
            except SupportError as error:
                _log.warning("housekeeping failed", extra={"error": f"{type(error).__name__}: {error}"})
                wait_s = self.look_every_s

    async def round(self) -> bool:
        """Prune every table to its end; False when another worker has the lease."""
        deleted: Counter[str] = Counter()
        is_through = False
        while not is_through:
            if not await self.leases.hold(LEASE, self.owner, lease_s=self.working_lease_s):
                return False
            pruned = await self.prune(self.keep)
            deleted.update(pruned.rows)
            is_through = pruned.is_through
            await asyncio.sleep(0 if is_through else self.pause_s)
        await self.leases.hold(LEASE, self.owner, lease_s=self.every_s)
        _log.info("housekeeping is through", extra={"deleted": dict(deleted)})
        return True


class Background(Protocol):
    """Work that goes on until it is cancelled."""

    async def run(self) -> None:
        """Do it."""


@contextlib.asynccontextmanager
async def in_background(work: Background) -> AsyncIterator[None]:
    """Do the work beside something else, which goes on when this breaks."""
    task = asyncio.create_task(work.run(), name=type(work).__name__)
    task.add_done_callback(_tell_of_a_bug)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _tell_of_a_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s broke and stays off in this process", task.get_name(), exc_info=error)


def retention(settings: PostgresSettings) -> Retention:
    """How long rows are kept. Raises Misconfigured: not as long as they are needed."""
    try:
        return Retention(
            inbox=settings.keep_inbox,
            emitted=settings.keep_emitted,
            journal=settings.keep_journal,
            model_calls=settings.keep_model_calls,
            recordings=settings.keep_recordings,
        )
    except Misconfigured as error:
        raise Misconfigured(f"{PREFIX}POSTGRES__KEEP_INBOX: {error}") from error
