"""What goes wrong around an agent: ports that fail or are cut short, a ticket that moves on, a model that is slow."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, cast

from contracts.errors import ModelUnavailable, StoreUnavailable
from contracts.events import CustomerReplied, Event
from contracts.models import AnswerT, CallContext, ModelAnswer, ModelRequest
from contracts.ports import Agent, ChatModel, Settled, Settlement, TicketStore
from contracts.ticket import Step, Ticket
from evals.conformance.house import House, Noting
from evals.conformance.scene import World


class Strike(Enum):
    """What befalls a call of a port."""

    REFUSED = auto()  # it is not made
    ANSWER_LOST = auto()  # it is made, and fails for the caller
    CRASH_BEFORE = auto()  # the worker dies before it is made
    CRASH_AFTER = auto()  # the worker dies after it is made


@dataclass
class Strikes:
    """Counts the calls of all ports in one life, and strikes those it is told to."""

    plan: Mapping[int, Strike] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def on(self, port: Any, name: str) -> Any:
        """The port under these strikes."""
        return _Struck(port, name, self)

    async def pass_(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call, or what is planned in its place."""
        strike = self.plan.get(len(self.calls))
        self.calls.append(name)
        if strike is Strike.CRASH_BEFORE:
            await self._crash()
        if strike is Strike.REFUSED:
            raise _away(name)
        result = await call()
        if strike is Strike.CRASH_AFTER:
            await self._crash()
        if strike is Strike.ANSWER_LOST:
            raise _away(name)
        return result

    async def _crash(self) -> None:
        self.crashed.set()
        await asyncio.Event().wait()  # nothing of this life goes on from here


class _Struck:
    def __init__(self, port: Any, name: str, strikes: Strikes) -> None:
        self._port, self._name, self._strikes = port, name, strikes

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            made = getattr(self._port, method)
            return await self._strikes.pass_(f"{self._name}.{method}", lambda: made(*args, **kwargs))

        return call


def _away(name: str) -> Exception:
    return ModelUnavailable(f"{name} fails") if name.startswith("model.") else StoreUnavailable(f"{name} fails")


def struck(house: House, model: ChatModel, strikes: Strikes) -> tuple[World, TicketStore]:
    """The agent's world and the engine's tickets, under the same strikes."""
    plain = house.world(model)
    world = World(
        strikes.on(plain.model, "model"),
        strikes.on(plain.shop, "shop"),
        strikes.on(plain.policy, "policy"),
        strikes.on(plain.effects, "effects"),
    )
    return world, cast(TicketStore, strikes.on(Noting(house), "tickets"))


@dataclass
class MovingOn:
    """A TicketStore where somebody else changes each ticket right before the first step on it is stored."""

    house: House
    moved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        tickets = self.house.stores.tickets
        self.load, self.look_up, self.overdue = tickets.load, tickets.look_up, tickets.overdue

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        """Store, a little too late."""
        for settlement in settlements:
            ticket = settlement.ticket
            if ticket.ticket_id not in self.moved:
                self.moved.add(ticket.ticket_id)
                await meddle(self.house, ticket.ticket_id, ticket.tenant_id)
        return await Noting(self.house).settle(settlements, owner)


async def meddle(house: House, ticket_id: str, tenant_id: str) -> None:
    """Have the customer write once more, and triage be at it."""
    ticket = await house.stores.tickets.load(ticket_id) or Ticket(ticket_id=ticket_id, tenant_id=tenant_id)
    wrote = CustomerReplied(ticket_id=ticket_id, tenant_id=tenant_id, body="By the way, thank you for your patience.")
    event = Event(f"meddling/{ticket_id}", "urn:conformance", house.scene.events[0].time, wrote)
    await house.change(ticket.open_round(event), "meddling")


@dataclass
class HeldModel:
    """A model that does not answer for some tickets (None: for none at all) until it is released."""

    model: ChatModel
    tickets: frozenset[str] | None
    released: asyncio.Event = field(default_factory=asyncio.Event)
    asked: set[str] = field(default_factory=set)

    async def ask(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        """The model's answer, late."""
        self.asked.add(call.ticket_id)
        if self.tickets is None or call.ticket_id in self.tickets:
            await self.released.wait()
        return await self.model.ask(request, call)


@dataclass(frozen=True)
class Twice:
    """An agent that is asked everything twice; where it says two different things, `unlike` names the event."""

    agent: Agent
    unlike: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The agent's own."""
        return self.agent.name

    @property
    def version(self) -> str:
        """The agent's own."""
        return self.agent.version

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """The agent's first step."""
        first, second = await self.agent.handle(ticket, event), await self.agent.handle(ticket, event)
        if first != second:
            self.unlike.append(event.type)
        return first


@dataclass(frozen=True)
class Renamed:
    """An agent under another group's name, to whose inbox every event is new."""

    agent: Agent
    name: str

    @property
    def version(self) -> str:
        """The agent's own."""
        return self.agent.version

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """The agent's step."""
        return await self.agent.handle(ticket, event)
