"""Admission: what is fetched is read and looked up in bulk, before any handler runs."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence

from bus.backoff import outlast
from bus.codec import Codec
from bus.delivery import Delivery
from contracts.errors import Undecodable
from contracts.events import Event
from contracts.ports import Known, Parking, TicketStore, Wanted
from contracts.ticket import Ticket
from contracts.topics import Topic

_AT_ONCE = 500  # records in one look-up
_READ_AT_ONCE = 100  # before others run


class Admission:
    """Takes fetched deliveries, in order; gives those to be handled to their lanes, with their tickets loaded.

    What the group has settled before, and what waits behind a parked ticket, comes to no lane.
    """

    def __init__(
        self,
        topic: Topic,
        group: str,
        codec: Codec,
        tickets: TicketStore,
        parking: Parking,
        *,
        offer: Callable[[Sequence[Delivery]], None],
        settled: Callable[[Delivery], None],
        has_lane: Callable[[str], bool],
        is_leaving: Callable[[str], bool],
    ) -> None:
        self._topic = topic
        self._group = group
        self._codec = codec
        self._tickets = tickets
        self._parking = parking
        self._offer = offer
        self._settled = settled
        self._has_lane = has_lane  # then a delivery of the ticket gets it from the one ahead in its lane
        self._is_leaving = is_leaving  # whether a ticket's earlier records are on their way from its lane to its queue
        self._waiting: deque[Delivery] = deque()
        self._something = asyncio.Event()
        # What happened in this worker since the look-up under way began, which may not have seen it:
        self._handled_since: set[str] = set()
        self._tickets_since: dict[str, Ticket | None] = {}
        self._parked_since: set[str] = set()
        self._in_lanes: set[str] = set()  # tickets that had a lane when the look-up under way began
        self._looking = False

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries that were fetched."""
        self._waiting.extend(deliveries)
        self._something.set()

    def noticed_settled(self, event_id: str, ticket_id: str, ticket: Ticket | None) -> None:
        """Hear that an event was settled, and what its ticket is now (None: something else)."""
        if self._looking:
            self._handled_since.add(event_id)
            self._tickets_since[ticket_id] = ticket

    def noticed_parked(self, ticket_id: str) -> None:
        """Hear that a ticket was parked."""
        if self._looking:
            self._parked_since.add(ticket_id)

    @property
    def looking(self) -> bool:
        """Whether a look-up is under way, which must hear of what happens meanwhile."""
        return self._looking

    async def run(self) -> None:
        """Admit what is put, until cancelled. An outage of the store is waited out."""
        while True:
            await self._something.wait()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                await self._admit(batch)
            self._something.clear()

    async def _admit(self, batch: Sequence[Delivery]) -> None:
        readable = await self._read(batch)
        self._looking = True
        try:
            known = await self._look_up(readable)
            queued = await self._queue_behind_parked(readable, known)
        finally:
            self._looking = False
        admitted = [d for d in batch if not _is_over(d) and d not in queued and self._must_run(d, known)]
        self._handled_since.clear()
        self._tickets_since.clear()
        self._parked_since.clear()
        self._offer(admitted)

    async def _read(self, batch: Sequence[Delivery]) -> list[Delivery]:
        for count, delivery in enumerate(batch, start=1):
            if delivery.decoded is None:
                delivery.read_as(self._decoded(delivery))
            if not count % _READ_AT_ONCE:
                await asyncio.sleep(0)
        return [delivery for delivery in batch if isinstance(delivery.decoded, Event)]

    def _decoded(self, delivery: Delivery) -> Event | Undecodable:
        try:
            return self._codec.decode(self._topic, delivery.record)
        except Undecodable as error:
            return error

    async def _look_up(self, readable: Sequence[Delivery]) -> Known:
        if not readable:
            return Known()
        events = [delivery.event for delivery in readable]
        self._in_lanes = {event.ticket_id for event in events if self._has_lane(event.ticket_id)}
        wanted = [Wanted(event.id, event.ticket_id, event.ticket_id not in self._in_lanes) for event in events]
        return await outlast(lambda: self._tickets.look_up(self._group, wanted))

    async def _queue_behind_parked(self, readable: Sequence[Delivery], known: Known) -> set[Delivery]:
        """Put what belongs to parked tickets into their queues; settles and returns those that are there."""
        queued: set[Delivery] = set()
        parked: Collection[str] = known.parked
        while parked := self._parked_since.union(parked):
            self._parked_since = set()  # what is parked while these are queued has a turn of its own
            behind = [
                delivery
                for delivery in readable
                if delivery.event.ticket_id in parked
                and not self._is_leaving(delivery.event.ticket_id)  # then it goes with those, by the lane
                and delivery.parked is None
                and delivery.event.id not in known.handled
                and delivery not in queued
                and not _is_over(delivery)
            ]
            if behind:
                queued |= await self._queue(behind)
            parked = ()
        return queued

    async def _queue(self, behind: Sequence[Delivery]) -> set[Delivery]:
        """Put deliveries behind their parked tickets; settles and returns those whose tickets are parked still."""
        followers = [(delivery.event.ticket_id, delivery.record) for delivery in behind]
        taken = await outlast(lambda: self._parking.queue(self._group, followers))
        queued = {delivery for delivery, is_queued in zip(behind, taken, strict=True) if is_queued}
        for delivery in queued:
            self._settled(delivery)
        return queued

    def _must_run(self, delivery: Delivery, known: Known) -> bool:
        """Give a delivery its ticket; False when its event is settled already."""
        event = delivery.decoded
        if not isinstance(event, Event):
            return True  # to become a dead letter, in its turn
        if event.id in known.handled or event.id in self._handled_since:
            self._settled(delivery)
            return False
        if event.ticket_id in self._tickets_since:
            delivery.ticket = self._tickets_since[event.ticket_id]
        elif event.ticket_id not in self._in_lanes:
            delivery.ticket = known.tickets.get(event.ticket_id) or _nobody_stored(event)
        return True


def _is_over(delivery: Delivery) -> bool:
    return delivery.assignment is not None and delivery.assignment.over


def _nobody_stored(event: Event) -> Ticket:
    return Ticket(ticket_id=event.ticket_id, tenant_id=event.tenant_id)
