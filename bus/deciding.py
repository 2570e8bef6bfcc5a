"""Deciding: load the ticket, ask the agent, store its step in one write, publish what it emits."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bus.backoff import outlast
from bus.codec import encode
from bus.delivery import Delivery
from bus.middleware import DeadlinePassed, seconds_until
from bus.outcome import Done, Duplicate, Outcome
from bus.publisher import Publish
from bus.tracing import current_traceparent
from contracts.errors import ContractBroken, TenantMismatch, UnknownTenant
from contracts.events import CustomerReplied, Event, ModelCalled, Payload, TicketSubmitted, caused_id
from contracts.models import ModelCall
from contracts.ports import OutgoingRecord, Published, Settlement, StoredRecord, TicketStore
from contracts.ticket import Signature, Step, Ticket, event_deadline, time_out

Decide = Callable[[Ticket, Event], Awaitable[Step]]


@dataclass(frozen=True, slots=True)
class Deciding:
    """The innermost handler. No transaction is open while `decide` thinks."""

    decide: Decide
    by: Signature  # its `agent` is the consumer group
    store: TicketStore
    publish: Publish
    tenants: frozenset[str] = frozenset()  # those served; empty: all

    async def __call__(self, delivery: Delivery) -> Outcome:
        """Settle one delivery.

        Raises VersionConflict: the ticket moved on, nothing is stored. DeadlinePassed: the limit came first.
        """
        event = delivery.event
        ticket = await self._load(event)
        step = await self._decided(ticket, event, delivery.limit)
        outgoing = _outgoing(step, event, self.by)
        stored = await self.store.settle(
            Settlement(self.by.agent, event, delivery.position, _at_version_of(ticket, step.ticket), outgoing)
        )
        if stored is None:
            return Duplicate()
        await self._publish(stored)
        return Done()

    async def _load(self, event: Event) -> Ticket:
        if self.tenants and event.tenant_id not in self.tenants:
            raise UnknownTenant("the tenant is not one of those served here")
        ticket = await self.store.load(event.ticket_id)
        if ticket is None:
            return _new_ticket(event)
        if ticket.tenant_id != event.tenant_id:
            raise TenantMismatch("the ticket belongs to another tenant")
        return ticket

    async def _decided(self, ticket: Ticket, event: Event, limit: datetime | None) -> Step:
        if limit is None:
            return await self.decide(ticket, event)
        try:
            async with asyncio.timeout(seconds_until(limit)) as clock:
                return await self.decide(ticket, event)
        except TimeoutError as error:
            if clock.expired():
                raise DeadlinePassed("the deadline passed while deciding") from error
            raise

    async def _publish(self, stored: Sequence[StoredRecord]) -> None:
        """Publish what was stored, in order, before the lane is free; an outage of Kafka is waited out."""
        published: list[Published] = []
        for row in stored:
            [position] = await outlast(functools.partial(self.publish, [row.record]))
            published.append(Published(row.outbox_id, position))
        if published:
            await outlast(lambda: self.store.mark_published(published))


def timing_out(by: Signature) -> Decide:
    """Decide that the deadline passed: a person has the round now."""

    async def decide(ticket: Ticket, event: Event) -> Step:
        return time_out(ticket, event, by)

    return decide


def _new_ticket(event: Event) -> Ticket:
    if not isinstance(event.data, TicketSubmitted | CustomerReplied):
        raise ContractBroken(f"{event.type} names a ticket that nobody stored")
    return Ticket(ticket_id=event.ticket_id, tenant_id=event.tenant_id)


def _at_version_of(loaded: Ticket, decided: Ticket) -> Ticket:
    if (decided.ticket_id, decided.tenant_id, decided.version) != (loaded.ticket_id, loaded.tenant_id, loaded.version):
        raise ContractBroken("a step may not change whose ticket it is, nor its version")
    return decided


def _outgoing(step: Step, cause: Event, by: Signature) -> tuple[OutgoingRecord, ...]:
    """What the step emits, then its paid calls, under ids that are the same at every retry."""
    ticket = step.ticket
    payloads: list[Payload] = [*step.emits, *(_model_called(call, cause, by) for call in step.calls)]
    for payload in payloads:
        if (payload.ticket_id, payload.tenant_id) != (ticket.ticket_id, ticket.tenant_id):
            raise ContractBroken(f"{payload.type_name()} is about another ticket")
    time, traceparent = datetime.now(UTC), current_traceparent()
    return tuple(
        encode(
            payload,
            cause=cause,
            event_id=caused_id(cause.id, by.agent, index),
            time=time,
            source=f"urn:switchyard:agent:{by.agent}",
            deadline=event_deadline(payload, cause),
            traceparent=traceparent or cause.traceparent,
        )
        for index, payload in enumerate(payloads)
    )


def _model_called(call: ModelCall, cause: Event, by: Signature) -> ModelCalled:
    return ModelCalled(
        ticket_id=cause.ticket_id,
        tenant_id=cause.tenant_id,
        event_id=cause.id,
        agent=by.agent,
        agent_version=by.version,
        **call.model_dump(),
    )
