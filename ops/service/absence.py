"""Absence: an agent's workers leave their consumer group for a moment, so that its offsets can be moved."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from bus.connection import KafkaConnection
from bus.groups import Group, groups
from bus.lease import Lease
from contracts.control import Mode, Seen
from contracts.errors import SupportError
from contracts.ports import Controls, Leases, absence_lease
from contracts.topics import Topic
from ops.service.control import THERE_WITHIN_S

LEASE_S = 15.0
"""So long after whoever sent them away was killed, workers return by themselves."""

_LOOK_EVERY_S = 0.2
_EMPTY = frozenset({"Empty", "Dead"})  # Dead: it never had members, or offsets
_HEARD = frozenset({Mode.DRAINING, Mode.DRAINED})


@dataclass(frozen=True, slots=True)
class SentAway:
    """Has workers stay out of a group while a lease lasts, which they heed before every order, and as they start.

    So nothing has to be taken back: who was paused before is paused afterwards, and when whoever holds the lease is
    killed, it ends by itself.
    """

    controls: Controls
    leases: Leases
    connection: KafkaConnection
    inboxes: Mapping[str, Topic]  # the topic each group reads
    limit_s: float  # for workers to finish what is in flight, and to leave

    async def who(self, group: str) -> Sequence[str]:
        """The workers that would be sent away, by name."""
        return [seen.presence.worker for seen in await self._there(group)]

    @contextlib.asynccontextmanager
    async def of(self, group: str, by: str) -> AsyncIterator[None]:
        """The group's workers are out of it while one is inside, and return afterwards.

        Raises SupportError: some did not leave in time, or somebody else has them away; they return.
        """
        lease = Lease(self.leases, absence_lease(group), f"{by}/{uuid.uuid4()}", lease_s=LEASE_S)
        if not await lease.held():
            raise SupportError(f"the workers of {group} are away for somebody else; try again in {LEASE_S:g} s")
        async with lease.kept():
            await self._until_gone(group)
            yield

    async def _until_gone(self, group: str) -> None:
        until = time.monotonic() + self.limit_s
        async with groups(self.connection) as asking:
            while True:
                at_kafka = await asking.describe(group, self.inboxes[group].name)
                deaf = [seen for seen in await self._there(group) if seen.presence.mode not in _HEARD]
                if at_kafka.state in _EMPTY and not deaf:
                    return
                if time.monotonic() > until:
                    raise SupportError(self._who_stayed(group, deaf, at_kafka))
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _there(self, group: str) -> Sequence[Seen]:
        return await self.controls.workers(group, within_s=THERE_WITHIN_S)

    def _who_stayed(self, group: str, deaf: Sequence[Seen], at_kafka: Group) -> str:
        named = [
            f"{one.presence.worker} ({one.presence.mode}, {one.presence.running} in flight, heard of"
            f" {one.silent_s:.0f} s ago)"
            for one in deaf
        ]
        named = named or [f"{member.client} on {member.host}" for member in at_kafka.members]
        return (
            f"of {group}, these did not leave the group within {self.limit_s:g} s: {', '.join(named)};"
            f" nothing was moved. Stop them, and try again"
        )
