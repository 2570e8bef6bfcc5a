"""The scheduler of parked tickets: one a group resumes their records when they fall due."""

import asyncio
import time
from collections.abc import Callable, Sequence

from bus.backoff import outlast
from bus.lease import Lease
from contracts.ports import Leases, ParkedRecord, Parking

_AT_ONCE = 500  # records in one look-up


class Scheduler:
    """Calls `resume` with a parked record when it is due, and again only once it was settled or parked again.

    Never early: a record's wait, told by the database, is counted on the monotonic clock from the moment the answer
    was there. What is in hand when the lease is lost goes on, and may be settled.
    """

    def __init__(
        self,
        parking: Parking,
        leases: Leases,
        group: str,
        owner: str,
        resume: Callable[[ParkedRecord], None],
        *,
        held_up: Callable[[], bool] = lambda: False,
        poll_s: float = 0.1,
        horizon_s: float = 0.3,  # above `poll_s` by what a look-up may take, so that nothing falls due between two
        most_in_hand: int = 2000,
        lease_s: float = 5.0,
    ) -> None:
        self._parking = parking
        self._group = group
        self._resume = resume
        self._held_up = held_up  # then others of the group may resume what is due
        self._poll_s = poll_s
        self._horizon_s = horizon_s
        self._most_in_hand = most_in_hand
        self._lease = Lease(leases, f"parking/{group}", owner, lease_s=lease_s)
        self._in_hand: set[int] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._left: set[int] = set()  # the hand, since the look-up under way began: it may still tell of them

    async def run(self) -> None:
        """Resume what is due while the lease is ours, until cancelled. An outage of the store is waited out."""
        try:
            while True:
                found = await outlast(self._look) if await self._may_look() else 0
                await asyncio.sleep(0 if found == _AT_ONCE else self._poll_s)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            await self._lease.give_back()

    async def settled(self, parked: ParkedRecord) -> None:
        """Release a record that is settled, and resume the next of its queue. An outage of the store is waited out."""
        following = await outlast(
            lambda: self._parking.release(self._group, parked.ticket_id, parked.parked_id),
        )
        self._let_go(parked)
        if following is not None:
            self._take([following])

    def parked_again(self, parked: ParkedRecord) -> None:
        """Let go of a record that was parked anew, or blocked."""
        self._let_go(parked)

    def forget(self) -> None:
        """Forget what is in hand: it was dropped, and is due still."""
        self._in_hand.clear()

    async def _may_look(self) -> bool:
        if not self._held_up():
            return await outlast(self._lease.held)
        if self._lease.is_ours:
            await self._lease.give_back()
        return False

    async def _look(self) -> int:
        """Look for what falls due; returns how many were found."""
        held = [*self._in_hand, *self._timers]
        limit = min(_AT_ONCE, self._most_in_hand - len(held))
        if limit <= 0:
            return 0
        self._left.clear()
        found = await self._parking.due(self._group, within_s=self._horizon_s, limit=limit, besides=held)
        self._take(found)
        return len(found)

    def _take(self, found: Sequence[ParkedRecord]) -> None:
        now = time.monotonic()
        for parked in found:
            if not self._knows(parked.parked_id):
                self._await_due(parked, now + parked.due_in_s)

    def _knows(self, parked_id: int) -> bool:
        return parked_id in self._in_hand or parked_id in self._timers or parked_id in self._left

    def _await_due(self, parked: ParkedRecord, due_at: float) -> None:
        """Hand the record out at that time; a loop's timer may fire a little early."""
        wait_s = due_at - time.monotonic()
        if wait_s > 0:
            timer = asyncio.get_running_loop().call_later(wait_s, self._await_due, parked, due_at)
            self._timers[parked.parked_id] = timer
            return
        self._timers.pop(parked.parked_id, None)
        if self._lease.is_ours:  # otherwise whoever holds the lease finds it
            self._in_hand.add(parked.parked_id)
            self._resume(parked)

    def _let_go(self, parked: ParkedRecord) -> None:
        self._in_hand.discard(parked.parked_id)
        self._left.add(parked.parked_id)
