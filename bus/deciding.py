"""Deciding: ask the agent for the step on a ticket. Nothing is stored here, and nothing is published."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

from bus.delivery import Delivery
from bus.middleware import DeadlinePassed, seconds_until
from bus.outcome import Decided, Outcome
from bus.outgoing import outgoing_of
from contracts.errors import ContractBroken, TenantMismatch, UnknownTenant, UnknownTicket
from contracts.events import CustomerReplied, Event, TicketSubmitted
from contracts.ports import Settlement, TicketStore
from contracts.ticket import Signature, Step, Ticket, time_out

Decide = Callable[[Ticket, Event], Awaitable[Step]]


@dataclass(frozen=True, slots=True)
class Deciding:
    """The innermost handler. No transaction is open while `decide` thinks."""

    decide: Decide
    by: Signature  # its `agent` is the consumer group
    tickets: TicketStore
    tenants: frozenset[str] = frozenset()  # those served; empty: all

    async def __call__(self, delivery: Delivery) -> Outcome:
        """Decide one delivery's step. Raises DeadlinePassed: the limit came first."""
        event = delivery.event
        if self.tenants and event.tenant_id not in self.tenants:
            raise UnknownTenant("the tenant is not one of those served here")
        if delivery.ticket is None:
            delivery.ticket = await self.tickets.load(event.ticket_id) or Ticket(
                ticket_id=event.ticket_id, tenant_id=event.tenant_id
            )
        ticket = _checked(delivery.ticket, event)
        step = await self._decided(ticket, event, delivery.limit)
        return Decided(
            Settlement(
                self.by.agent,
                event,
                delivery.position,
                _at_version_of(ticket, step.ticket),
                outgoing_of(step, event, self.by),
            )
        )

    async def _decided(self, ticket: Ticket, event: Event, limit: datetime | None) -> Step:
        if limit is None:
            return await self.decide(ticket, event)
        with _Limit(seconds_until(limit)):
            return await self.decide(ticket, event)


class _Limit:
    """What `asyncio.timeout` does, at a tenth of its cost: there is one for every delivery.

    Raises DeadlinePassed: the time ran out first. An error of the block, a TimeoutError too, passes through.
    """

    __slots__ = ("_passed", "_task", "_timer", "_wait_s")

    def __init__(self, wait_s: float) -> None:
        self._wait_s = max(0.0, wait_s)
        self._passed = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._pass)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._passed and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise DeadlinePassed("the deadline passed while deciding") from error

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()


def timing_out(by: Signature) -> Decide:
    """Decide that the deadline passed: a person has the round now."""

    async def decide(ticket: Ticket, event: Event) -> Step:
        return time_out(ticket, event, by)

    return decide


def _checked(ticket: Ticket, event: Event) -> Ticket:
    if ticket.tenant_id != event.tenant_id:
        raise TenantMismatch("the ticket belongs to another tenant")
    if not ticket.version and not isinstance(event.data, TicketSubmitted | CustomerReplied):
        raise UnknownTicket(f"{event.type} names a ticket that nobody stored")
    return ticket


def _at_version_of(loaded: Ticket, decided: Ticket) -> Ticket:
    if (decided.ticket_id, decided.tenant_id, decided.version) != (loaded.ticket_id, loaded.tenant_id, loaded.version):
        raise ContractBroken("a step may not change whose ticket it is, nor its version")
    return decided
