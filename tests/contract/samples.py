"""A small shop, tickets and settlements that the contract tests share."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from contracts.events import (
    CancelOrder,
    ChangeAddress,
    ChangeDefaultAddress,
    ChangePayment,
    Event,
    ExchangeItems,
    ModifyItems,
    ReturnItems,
    SendReply,
    TicketSubmitted,
)
from contracts.ports import OutgoingRecord, Position, Settled, Settlement, Stored, TicketStore, Wanted
from contracts.shop import Address, Customer, Order, OrderItem, Payment, PaymentMethod, Product, Variant
from contracts.ticket import Ticket
from state.shop_files import ShopExport

SHOP = "corner-shop"
TENANT = "north"
OTHER_TENANT = "south"
OTHER_SHOP = "other-shop"
OWNER = "worker-1"
OTHER_OWNER = "worker-2"

HERE = Address(address1="1 Mill Lane", city="Leeds", country="UK", zip="LS1")
THERE = Address(address1="2 Quay", city="Hull", country="UK", zip="HU1")


def shop_of(tenant_id: str) -> str:
    return {TENANT: SHOP, OTHER_TENANT: OTHER_SHOP}[tenant_id]


def order(order_id: str, user_id: str, status: str, *prices: str) -> Order:
    """An order whose n-th piece is item `i<n>`, paid by card."""
    items = tuple(
        OrderItem(name=f"Thing {n}", product_id=f"p{n}", item_id=f"i{n}", price=Decimal(price))
        for n, price in enumerate(prices, start=1)
    )
    paid = Payment(
        transaction_type="payment", amount=sum((i.price for i in items), Decimal(0)), payment_method_id="card_1"
    )
    return Order(order_id=order_id, user_id=user_id, address=HERE, items=items, status=status, payment_history=(paid,))


def customer(user_id: str, email: str, *order_ids: str) -> Customer:
    """A customer with a card, a gift card of 10 and PayPal."""
    return Customer(
        user_id=user_id,
        email=email,
        payment_methods={
            "card_1": PaymentMethod(id="card_1", source="credit_card"),
            "gift_1": PaymentMethod(id="gift_1", source="gift_card", balance=Decimal("10")),
            "paypal_1": PaymentMethod(id="paypal_1", source="paypal"),
        },
        orders=order_ids,
    )


EXPORT = ShopExport(
    customers=(customer("ada", "Ada.Reed@Example.com", "#W2", "#W1", "#W10"), customer("bo", "bo@example.com", "#W3")),
    orders=(
        order("#W2", "ada", "delivered", "5.10", "7.20"),
        order("#W1", "ada", "pending", "12.30", "0.05"),
        order("#W10", "ada", "processed", "3"),
        order("#W3", "bo", "pending", "99.99"),
    ),
    products=(
        Product(
            product_id="p1",
            name="Thing 1",
            variants={
                "i1": Variant(item_id="i1", options={}, price=Decimal("12.30")),
                "dear": Variant(item_id="dear", options={"size": "L"}, price=Decimal("20.00")),
                "cheap": Variant(item_id="cheap", options={"size": "S"}, price=Decimal("4.00")),
                "gone": Variant(item_id="gone", options={"size": "XL"}, available=False, price=Decimal("12.30")),
            },
        ),
    ),
    policy_markdown="# Policy\n\nBe kind.\n\n## Returns\n\nBring it back. Within a month.\n",
)
OTHER_EXPORT = ShopExport(
    customers=(customer("ada", "ada.reed@example.com", "#W1"),), orders=(order("#W1", "ada", "delivered", "1"),)
)


def cancel(key: str, order_id: str = "#W1") -> CancelOrder:
    return CancelOrder(
        ticket_id="t1", tenant_id=TENANT, effect_key=key, round=1, order_id=order_id, reason="no longer needed"
    )


def give_back(key: str, *item_ids: str, method: str = "card_1", order_id: str = "#W2") -> ReturnItems:
    return ReturnItems(
        ticket_id="t1",
        tenant_id=TENANT,
        effect_key=key,
        round=1,
        order_id=order_id,
        item_ids=item_ids,
        payment_method_id=method,
    )


def move(key: str, order_id: str = "#W1") -> ChangeAddress:
    return ChangeAddress(ticket_id="t1", tenant_id=TENANT, effect_key=key, round=1, order_id=order_id, address=THERE)


def exchange(key: str, difference: str, *item_ids: str, new: Sequence[str], method: str = "card_1") -> ExchangeItems:
    return ExchangeItems(
        ticket_id="t1",
        tenant_id=TENANT,
        effect_key=key,
        round=1,
        order_id="#W2",
        item_ids=item_ids,
        new_item_ids=tuple(new),
        payment_method_id=method,
        difference=Decimal(difference),
    )


def modify(key: str, difference: str, *item_ids: str, new: Sequence[str], method: str = "card_1") -> ModifyItems:
    swap = exchange(key, difference, *item_ids, new=new, method=method)
    return ModifyItems.model_validate(swap.model_dump() | {"order_id": "#W1"})


def pay_with(key: str, method: str, amount: str = "12.35") -> ChangePayment:
    return ChangePayment(
        ticket_id="t1",
        tenant_id=TENANT,
        effect_key=key,
        round=1,
        order_id="#W1",
        payment_method_id=method,
        amount=Decimal(amount),
    )


def move_home(key: str) -> ChangeDefaultAddress:
    return ChangeDefaultAddress(ticket_id="t1", tenant_id=TENANT, effect_key=key, round=1, address=THERE)


def reply(key: str, text: str = "It is on its way.") -> SendReply:
    return SendReply(
        ticket_id="t1",
        tenant_id=TENANT,
        effect_key=key,
        round=1,
        to_email="ada@example.com",
        subject="Re: hello",
        text=text,
    )


def event(event_id: str, ticket_id: str = "t1") -> Event:
    """A customer's message."""
    return Event(
        id=event_id,
        source="tests",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data=TicketSubmitted(
            ticket_id=ticket_id, tenant_id=TENANT, from_email="ada@example.com", body=f"I am {event_id}"
        ),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def new_ticket(ticket_id: str = "t1") -> Ticket:
    return Ticket(ticket_id=ticket_id, tenant_id=TENANT)


def record(event_id: str, ticket_id: str = "t1", *, topic: str = "support.outcomes.v1") -> OutgoingRecord:
    """An event to publish, with a header that is no text."""
    return OutgoingRecord(
        event_id=event_id,
        type="TicketResolved",
        ticket_id=ticket_id,
        topic=topic,
        value=b'{"reply": "f\xc3\xbcr dich"}',
        headers=(("ce_id", event_id.encode()), ("odd", b"\x00\xff"), ("odd", b"")),
    )


def settlement(
    ticket: Ticket, event_id: str, *, outgoing: Sequence[OutgoingRecord] = (), group: str = "triage", step: bool = True
) -> Settlement:
    """A round opened by the event, or nothing done about it when `step` is false."""
    happened = event(event_id, ticket.ticket_id)
    return Settlement(
        group=group,
        event=happened,
        position=Position("support.tickets.v1", 3, 41),
        ticket=ticket.open_round(happened) if step else ticket,
        outgoing=tuple(outgoing),
    )


async def settled(store: TicketStore, one: Settlement, owner: str = OWNER) -> Settled:
    """What became of a settlement that comes alone."""
    [result] = await store.settle([one], owner)
    return result


async def must_settle(store: TicketStore, one: Settlement, owner: str = OWNER) -> Stored:
    """Settle what can be settled."""
    result = await settled(store, one, owner)
    assert isinstance(result, Stored), result
    return result


async def stored(store: TicketStore, ticket_id: str = "t1", event_id: str = "e1") -> Ticket:
    """A ticket at version 1."""
    await must_settle(store, settlement(new_ticket(ticket_id), event_id))
    return await loaded(store, ticket_id)


async def loaded(store: TicketStore, ticket_id: str = "t1") -> Ticket:
    """The ticket, which must be there."""
    ticket = await store.load(ticket_id)
    assert ticket is not None
    return ticket


async def handled(store: TicketStore, *event_ids: str, group: str = "triage") -> set[str]:
    """Which of the events the group has settled."""
    known = await store.look_up(group, [Wanted(event_id, "t1") for event_id in event_ids])
    return set(known.handled)
