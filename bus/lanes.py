"""Lanes: each ticket's deliveries in order, many tickets at once. No I/O."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from datetime import datetime

from bus.delivery import Delivery

_REMEMBERED = 10_000  # events settled in one lane without a pause


class Lane:
    """One key's deliveries: the first one waits or runs, the others wait behind it."""

    __slots__ = ("first", "handled", "key", "last", "running")

    def __init__(self, first: Delivery) -> None:
        self.key = first.key
        self.first = first
        self.last = first
        self.running = False
        self.handled: dict[str, None] | None = None  # ids of events settled since it last was empty

    def remember(self, event_id: str) -> None:
        """Remember an event that was settled, for the deliveries that wait behind it."""
        if self.handled is None:
            self.handled = {}
        elif len(self.handled) >= _REMEMBERED:
            del self.handled[next(iter(self.handled))]
        self.handled[event_id] = None

    def __iter__(self) -> Iterator[Delivery]:
        delivery: Delivery | None = self.first
        while delivery is not None:
            yield delivery
            delivery = delivery.next_in_lane


class Lanes:
    """Which delivery runs next: tenants take turns; within one, the earliest limit first, then first come.

    In each lane one delivery runs at a time, first in, first out. Every step costs O(1), or O(log n) with limits.
    """

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane] = {}
        self._tenants: dict[str, _Tenant] = {}
        self._turns: deque[_Tenant] = deque()  # those with a lane that is ready
        self.ready = 0  # lanes that could run now
        self.running = 0  # lanes that do

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, key: Hashable) -> Lane | None:
        """The lane of a key, if it holds anything."""
        return self._lanes.get(key)

    def offer(self, delivery: Delivery) -> None:
        """Queue a delivery at the end of its lane."""
        lane = self._lanes.get(delivery.key)
        if lane is not None:
            lane.last.next_in_lane = delivery
            lane.last = delivery
            return
        lane = self._lanes[delivery.key] = Lane(delivery)
        self._is_ready(lane)

    def take(self) -> Delivery | None:
        """The next delivery that may run, or None; its lane is then busy until `done`, `again` or `cut`."""
        if not self._turns:
            return None
        turns = self._turns
        tenant = turns[0]
        lane = tenant.pop()
        self.ready -= 1
        if not tenant:
            turns.popleft()
            del self._tenants[tenant.name]
        elif len(turns) > 1:
            turns.rotate(-1)
        lane.running = True
        self.running += 1
        delivery = lane.first
        if delivery.assignment is not None:
            delivery.assignment.running += 1
        return delivery

    def done(self, delivery: Delivery) -> None:
        """Free the lane of a delivery that ran; the one behind it may run."""
        lane = self._stopped(delivery)
        following = delivery.next_in_lane
        if following is None:
            del self._lanes[delivery.key]
        else:
            lane.first = following
            self._is_ready(lane)

    def again(self, delivery: Delivery) -> None:
        """Let a delivery that ran run once more, ahead of those behind it; nothing when its partition is gone."""
        if delivery.assignment is not None and delivery.assignment.over:
            self.done(delivery)
            return
        self._is_ready(self._stopped(delivery))

    def cut_behind(self, delivery: Delivery) -> list[Delivery]:
        """Take those that wait behind a running delivery out of its lane, in order."""
        lane = self._lanes[delivery.key]
        behind = list(lane)[1:]
        delivery.next_in_lane = None
        lane.last = delivery
        return behind

    def drop(self, unwanted: Callable[[Delivery], bool]) -> None:
        """Forget waiting deliveries. What runs keeps its lane, so that the same ticket, come back, waits for it."""
        for lane in list(self._lanes.values()):
            kept = [d for n, d in enumerate(lane) if (n == 0 and lane.running) or not unwanted(d)]
            if kept:
                _chain(lane, kept)
            else:
                del self._lanes[lane.key]
        self._tenants.clear()
        self._turns.clear()
        self.ready = 0
        for lane in self._lanes.values():
            if not lane.running:
                self._is_ready(lane)

    def _stopped(self, delivery: Delivery) -> Lane:
        if delivery.assignment is not None:
            delivery.assignment.running -= 1
        lane = self._lanes[delivery.key]
        lane.running = False
        self.running -= 1
        return lane

    def _is_ready(self, lane: Lane) -> None:
        name = lane.first.tenant
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(name)
            self._turns.append(tenant)
        tenant.push(lane)
        self.ready += 1


def _chain(lane: Lane, deliveries: list[Delivery]) -> None:
    for before, after in zip(deliveries, [*deliveries[1:], None], strict=True):
        before.next_in_lane = after
    lane.first, lane.last = deliveries[0], deliveries[-1]


class _Tenant:
    """A tenant's lanes that are ready: those with a limit by it, the others first come, first served."""

    __slots__ = ("_arrivals", "_dated", "_undated", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._undated: deque[Lane] = deque()
        self._dated: list[tuple[datetime, int, Lane]] = []
        self._arrivals = 0

    def __bool__(self) -> bool:
        return bool(self._undated or self._dated)

    def push(self, lane: Lane) -> None:
        limit = lane.first.limit
        if limit is None:
            self._undated.append(lane)
        else:
            self._arrivals += 1
            heapq.heappush(self._dated, (limit, self._arrivals, lane))

    def pop(self) -> Lane:
        return heapq.heappop(self._dated)[2] if self._dated else self._undated.popleft()
