"""The kit refuses agents that are broken, each for what is wrong with it."""

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from pydantic import BaseModel

from contracts.errors import StoreUnavailable
from contracts.events import Event, LookupRequested, SendReply
from contracts.models import CallContext, ModelRequest
from contracts.ports import ChatModel, EffectsPort, Shop
from contracts.shop import Order
from contracts.ticket import Desk, Signature, Step, Ticket, close, effect_key
from contracts.values import Disposition, Label, Tier
from evals.conformance.kit import conforms
from evals.conformance.scene import MakeAgent, NotConforming
from llm.scripted import ScriptedModel
from tests.conformance.test_shipped_agents import events, ticket
from tests.unit.agents.kit import CLEO, EXPORT, PENDING

HANDOFFS = [LookupRequested(ticket_id="t1", round=1), LookupRequested(ticket_id="t2", round=1)]
TICKETS = [
    ticket("t1", Desk.LOOKUP, Label.COMPLAINT, "The lamp is broken", PENDING),
    ticket("t2", Desk.LOOKUP, Label.COMPLAINT, "It took a month", sender=CLEO),
]


@dataclass
class Sound:
    """Answers each round once; those below are this one and a mistake."""

    version: str = "v"
    name: str = "sound"

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        assert isinstance(event.data, LookupRequested)
        round_ = ticket.round(event.data.round)
        if round_.desk is not Desk.LOOKUP:
            return Step(ticket)
        by, reply = Signature(self.name, self.version), await self.reply(ticket, event)
        return close(ticket, round_, Disposition.ANSWERED, by, reply=reply)

    async def reply(self, ticket: Ticket, event: Event) -> str:
        return "We are sorry."


@dataclass
class Remembering(Sound):
    """Keeps what it has seen."""

    seen: set[str] = field(default_factory=set)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        if event.id in self.seen:
            return Step(ticket)
        self.seen.add(event.id)
        return await super().handle(ticket, event)


@dataclass
class Counting(Sound):
    """Keeps a count, which every worker begins anew."""

    count: int = 0

    async def reply(self, ticket: Ticket, event: Event) -> str:
        self.count += 1
        return f"You are our customer number {self.count}."


@dataclass
class Noting(Sound):
    """Notes at a ticket's first round what it says at the second."""

    notes: dict[str, str] = field(default_factory=dict)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        assert isinstance(event.data, LookupRequested)
        round_ = ticket.round(event.data.round)
        if round_.desk is not Desk.LOOKUP:
            return Step(ticket)
        if round_.number == 1:
            self.notes[ticket.ticket_id] = round_.body
        reply = f"As to what you wrote first: {self.notes.get(ticket.ticket_id)}"
        return close(ticket, round_, Disposition.ANSWERED, Signature(self.name, self.version), reply=reply)


@dataclass
class Impatient(Sound):
    """Sends a reply itself, and when it hears nothing sends another."""

    effects: EffectsPort = field(kw_only=True)

    async def reply(self, ticket: Ticket, event: Event) -> str:
        for number in range(2):
            with contextlib.suppress(StoreUnavailable):
                await self.effects.send(sorry(ticket, f"sorry/{number}"))
                break
        return "We are sorry."


def sorry(ticket: Ticket, what: str) -> SendReply:
    return SendReply(
        ticket_id=ticket.ticket_id,
        effect_key=effect_key(ticket, 1, what),
        round=1,
        to_email=ticket.rounds[0].from_email,
        subject="Sorry",
        text="We are sorry.",
    )


class Inventing(Sound):
    """Makes up a fresh id for every effect."""

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        step = await super().handle(ticket, event)
        if step.emits:
            reply = step.emits[-1].model_copy(update={"effect_key": str(uuid.uuid4())})
            return Step(step.ticket, (*step.emits[:-1], reply))
        return step


class Refund(BaseModel):
    amount: Decimal


@dataclass
class Credulous(Sound):
    """Tells the customer the amount that its model names."""

    model: ChatModel = field(kw_only=True)

    async def reply(self, ticket: Ticket, event: Event) -> str:
        request = ModelRequest(tier=Tier.FAST, system="How much?", content=ticket.rounds[0].body, answer=Refund)
        call = CallContext(ticket.ticket_id, ticket.tenant_id, event.id, self.name, "amount")
        return f"We give you ${(await self.model.ask(request, call)).value.amount:,.2f} back."


@dataclass
class Indiscreet(Sound):
    """Looks an order up without a look at whose it is."""

    shop: Shop = field(kw_only=True)

    async def reply(self, ticket: Ticket, event: Event) -> str:
        order: Order | None = await self.shop.order(ticket.tenant_id, "#W2000001")
        return f"Your {order.items[0].name} is on its way." if order else ""


class Repeating(Sound):
    """Ends a round whether it is at its desk or not."""

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        by = Signature(self.name, self.version)
        return close(ticket, ticket.rounds[0], Disposition.ANSWERED, by, reply="We are sorry.")


@dataclass
class Queueing(Credulous):
    """Asks its model for one ticket after the other."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def reply(self, ticket: Ticket, event: Event) -> str:
        async with self.turn:
            await super().reply(ticket, event)
        return "We are sorry."


async def tried(make: MakeAgent) -> None:
    model = ScriptedModel({"Refund": lambda _: {"amount": "5.00"}})
    await conforms(make, events(*HANDOFFS), tickets=TICKETS, shop=EXPORT, model=model)


async def test_the_agent_without_a_mistake_is_accepted() -> None:
    await tried(lambda world: Sound())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda world: Remembering(), "decided twice"),
        (lambda world: Counting(), "decided twice"),
        (lambda world: Impatient(effects=world.effects), "outages: .* at effects.send, call 1: effects"),
        (lambda world: Inventing(), "effect_key is"),
        (lambda world: Credulous(model=world.model), "lying model: .* says 987654321, for which there is only"),
        (lambda world: Indiscreet(shop=world.shop), "holds 'Secret Diary', which is another customer's"),
        (lambda world: Queueing(model=world.model), "slow model: while ticket t1 waits for it, others stand still"),
        (lambda world: Repeating(), "long forgotten emits TicketResolved once more"),
    ],
    ids=["remembering", "counting", "impatient", "inventing", "credulous", "indiscreet", "queueing", "repeating"],
)
async def test_an_agent_with_a_mistake_is_refused_for_it(make: MakeAgent, complaint: str) -> None:
    with pytest.raises(NotConforming, match=complaint):
        await tried(make)


async def test_an_agent_that_keeps_in_mind_what_it_should_keep_in_the_ticket_does_not_survive_a_crash() -> None:
    first = TICKETS[0].rounds[0]
    second = first.model_copy(update={"number": 2, "event_id": "second", "body": "And the lamp?"})
    twice = TICKETS[0].model_copy(update={"rounds": (first, second)})
    handed = events(*HANDOFFS, LookupRequested(ticket_id="t1", round=2))
    with pytest.raises(NotConforming, match=r"crashes: .* at tickets\.settle, .*first: None"):
        await conforms(lambda world: Noting(), handed, tickets=[twice, TICKETS[1]], shop=EXPORT)


async def test_one_ticket_alone_is_not_enough() -> None:
    with pytest.raises(ValueError, match="two"):
        await conforms(lambda world: Sound(), events(HANDOFFS[0]), tickets=TICKETS[:1], shop=EXPORT)


async def test_an_agent_that_does_nothing_with_its_events_has_not_been_tried() -> None:
    class Idle(Sound):
        async def handle(self, ticket: Ticket, event: Event) -> Step:
            return Step(ticket)

    with pytest.raises(NotConforming, match="does nothing"):
        await tried(lambda world: Idle())
