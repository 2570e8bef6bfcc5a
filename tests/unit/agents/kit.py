"""What the tests of the agents share: a small shop, the desks around it, and a bus of one list."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agents.effects import Effects
from agents.lookup import Lookup
from agents.prompts import load_prompt
from agents.reasoning import Reasoning
from agents.triage import Triage
from contracts.events import (
    CustomerReplied,
    Event,
    LookupRequested,
    Outcome,
    Payload,
    ReasoningRequested,
    ReviewRequested,
    SendReply,
    TicketSubmitted,
    caused_id,
)
from contracts.models import ModelRequest
from contracts.ports import Agent, ChatModel
from contracts.shop import (
    Address,
    Customer,
    Fulfillment,
    Order,
    OrderItem,
    Payment,
    PaymentMethod,
    Product,
    Variant,
)
from contracts.ticket import Step, Ticket
from llm.scripted import ScriptedModel
from llm.standin import wit
from state.effects import MemoryEffects
from state.policy_search import HybridSearch
from state.shop import MemoryShop
from state.shop_files import ShopExport

ANN, BEN, CLEO, DAN = "ann@example.com", "ben@example.com", "cleo@example.com", "dan@example.com"
PENDING, DELIVERED, PROCESSED, BENS = "#W1000001", "#W1000002", "#W1000003", "#W2000001"
HOME = Address(address1="1 Old Lane", city="Springfield", state="IL", country="USA", zip="62701")
POLICY = """# Shop policy

## Cancelling

An order can only be cancelled while its status is 'pending'. The customer names the reason.

## Modifying

An order can only be modified while its status is 'pending'.

## Returning

An order can only be returned if its status is 'delivered'. Refunds go to the original payment method.

## Exchanging

An order can only be exchanged if its status is 'delivered'.

## Accounts

Customers may change the default address of their account.

## Invoices and payment

Every order comes with an invoice by e-mail. You can pay by credit card, by gift card or with PayPal.
"""


def order(
    order_id: str, user_id: str, status: str, *names: str, price: str = "20.00", paid_with: str = "card"
) -> Order:
    """An order of pieces at one price each, paid in full."""
    items = tuple(
        OrderItem(
            name=name,
            product_id=f"p-{name}",
            item_id=f"{order_id}-{place}",
            price=Decimal(price),
            options={"color": "red", "size": "small"},
        )
        for place, name in enumerate(names)
    )
    paid = Payment(transaction_type="payment", amount=Decimal(price) * len(names), payment_method_id=paid_with)
    sent = (Fulfillment(tracking_id=(f"TRACK{order_id[2:]}",), item_ids=()),) if status != "pending" else ()
    return Order(
        order_id=order_id,
        user_id=user_id,
        address=HOME,
        items=items,
        status=status,
        fulfillments=sent,
        payment_history=(paid,),
    )


ORDERS = (
    order(PENDING, "ann", "pending", "Lamp", "Teapot"),
    order(DELIVERED, "ann", "delivered", "Rug", "Lamp"),
    order(PROCESSED, "ann", "processed", "Stool"),
    order(BENS, "ben", "delivered", "Secret Diary", price="900.00"),
)
CUSTOMERS = (
    Customer(
        user_id="ann",
        email=ANN,
        payment_methods={
            "card": PaymentMethod(id="card", source="credit_card", last_four="4242"),
            "gift": PaymentMethod(id="gift", source="gift_card", balance=Decimal(5)),
        },
        orders=(PENDING, DELIVERED, PROCESSED),
    ),
    Customer(
        user_id="ben",
        email=BEN,
        payment_methods={"card": PaymentMethod(id="card", source="credit_card")},
        orders=(BENS,),
    ),
    Customer(user_id="cleo", email=CLEO),
)
PRODUCTS = tuple(
    Product(
        product_id=f"p-{name}",
        name=name,
        variants={
            f"{name}-{color}-{size}": Variant(
                item_id=f"{name}-{color}-{size}",
                options={"color": color, "size": size},
                price=Decimal(price),
                available=color != "black",
            )
            for color, size, price in (
                ("red", "small", "20.00"),
                ("blue", "small", "24.50"),
                ("blue", "large", "30.00"),
                ("black", "small", "20.00"),
            )
        },
    )
    for name in ("Lamp", "Teapot", "Rug")
)
EXPORT = ShopExport(customers=CUSTOMERS, orders=ORDERS, products=PRODUCTS, policy_markdown=POLICY)


def the_wit() -> ScriptedModel:
    """A model that answers as the stand-in would."""

    def answered(request: ModelRequest[Any]) -> Mapping[str, Any]:
        return wit.answer(request.answer.__name__, request.system, request.content)

    return ScriptedModel({"TriageVerdict": answered, "ReasoningProposal": answered})


@dataclass
class Desks:
    """All agents around one shop. `write` plays a customer's message to the end of what follows from it."""

    export: ShopExport = EXPORT
    model: ChatModel = field(default_factory=the_wit)
    money_limit_usd: float = 500
    ticket: Ticket = field(default_factory=lambda: Ticket(ticket_id="t1", tenant_id="default"))
    emitted: list[Payload] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shop = MemoryShop({"main": self.export}, lambda _: "main")
        self.effects_port = MemoryEffects(self.shop)
        self.triage = Triage(model=self.model, version="v", prompt=load_prompt("triage"))
        self.lookup = Lookup(shop=self.shop, version="v")
        self.reasoning = Reasoning(
            model=self.model,
            shop=self.shop,
            policy=HybridSearch(self.shop.policies, lambda _: "main"),
            version="v",
            prompt=load_prompt("reasoning"),
            money_limit_usd=self.money_limit_usd,
        )
        self.effects = Effects(port=self.effects_port, shop=self.shop, version="v")

    def agent_for(self, payload: Payload) -> Agent | None:
        """Who reads this payload's topic."""
        match payload:
            case TicketSubmitted() | CustomerReplied():
                return self.triage
            case LookupRequested():
                return self.lookup
            case ReasoningRequested():
                return self.reasoning
            case Outcome() | ReviewRequested():
                return None
            case _:
                return self.effects

    async def write(self, body: str, sender: str = ANN, **more: Any) -> Outcome:
        """Publish a message; returns the outcome of its round."""
        first = TicketSubmitted(ticket_id=self.ticket.ticket_id, from_email=sender, body=body, **more)
        waiting = [event_of(first, f"message-{len(self.ticket.rounds)}")]
        already = len(self.emitted)
        while waiting:
            event = waiting.pop(0)
            agent = self.agent_for(event.data)
            if agent is None:
                continue
            step = await self._handle(agent, event)
            self.ticket = step.ticket
            self.emitted.extend(step.emits)
            waiting.extend(
                event_of(payload, caused_id(event.id, agent.name, place)) for place, payload in enumerate(step.emits)
            )
        outcomes = [payload for payload in self.emitted[already:] if isinstance(payload, Outcome)]
        assert len(outcomes) == 1, f"{len(outcomes)} outcomes of one round"
        return outcomes[0]

    async def _handle(self, agent: Agent, event: Event) -> Step:
        step = await agent.handle(self.ticket, event)
        if not isinstance(event.data, TicketSubmitted | CustomerReplied):
            again = await agent.handle(step.ticket, event)
            assert again == Step(step.ticket), f"{agent.name} handled a finished round again"
        return step

    def sent(self) -> list[str]:
        """The texts written to customers."""
        return [payload.text for payload in self.emitted if isinstance(payload, SendReply)]

    async def order(self, order_id: str) -> Order:
        """An order's rows as they are now."""
        found = await self.shop.order("default", order_id)
        assert found is not None
        return found


def event_of(payload: Payload, event_id: str = "e1") -> Event:
    """The payload as it comes from its topic."""
    return Event(id=event_id, source="test", time=datetime(2024, 1, 1, tzinfo=UTC), data=payload)
