"""The agents that ship keep to what the kit asks of any agent."""

from collections.abc import Sequence

from agents.effects import Effects
from agents.lookup import Lookup
from agents.prompts import load_prompt
from agents.reasoning import Reasoning
from agents.triage import Triage
from contracts.events import (
    CancelOrder,
    CustomerReplied,
    Event,
    LookupRequested,
    Payload,
    ReasoningRequested,
    ReturnItems,
    SendReply,
    TicketSubmitted,
)
from contracts.shop import ActionKind
from contracts.ticket import Desk, Proposal, Round, Ticket
from contracts.values import Label
from evals.conformance.kit import conforms
from evals.conformance.scene import World
from tests.unit.agents.kit import ANN, CLEO, DELIVERED, EXPORT, PENDING, event_of, the_wit


def events(*payloads: Payload) -> Sequence[Event]:
    return [event_of(payload, f"event-{number}") for number, payload in enumerate(payloads)]


def ticket(ticket_id: str, desk: Desk, label: Label, body: str, *refs: str, sender: str = ANN) -> Ticket:
    """A ticket whose one round is at a desk."""
    round_ = Round(
        number=1,
        event_id=f"wrote-{ticket_id}",
        submission=True,
        from_email=sender,
        subject="",
        body=body,
        desk=desk,
        label=label,
        confidence=0.9,
        language="en",
        order_refs=refs,
    )
    return Ticket(ticket_id=ticket_id, tenant_id="default", rounds=(round_,))


async def test_triage_conforms() -> None:
    def make(world: World) -> Triage:
        return Triage(model=world.model, version="v", prompt=load_prompt("triage"))

    tried = await conforms(
        make,
        events(
            TicketSubmitted(ticket_id="t1", from_email=ANN, body=f"Where is my order {PENDING}?"),
            TicketSubmitted(ticket_id="t2", from_email=CLEO, body="Please cancel my order, I do not need it any more."),
            CustomerReplied(ticket_id="t1", from_email=ANN, body="I want to return the rug."),
            TicketSubmitted(ticket_id="t3", from_email=ANN, body=""),
        ),
        shop=EXPORT,
        model=the_wit(),
    )
    assert tried["lying model"] > 100


async def test_lookup_conforms() -> None:
    tried = await conforms(
        lambda world: Lookup(shop=world.shop, version="v"),
        events(LookupRequested(ticket_id="t1", round=1), LookupRequested(ticket_id="t2", round=1)),
        tickets=[
            ticket("t1", Desk.LOOKUP, Label.ORDER_STATUS, "Where is it?", PENDING),
            ticket("t2", Desk.LOOKUP, Label.ORDER_STATUS, "Where is it?", "#W2000001", sender=CLEO),
        ],
        shop=EXPORT,
    )
    assert tried["crashes"] > 20


async def test_reasoning_conforms() -> None:
    def make(world: World) -> Reasoning:
        prompt = load_prompt("reasoning")
        return Reasoning(
            model=world.model, shop=world.shop, policy=world.policy, version="v", prompt=prompt, money_limit_usd=500
        )

    confirming = ticket("t3", Desk.REASONING, Label.CANCEL_ORDER, "Yes, please.", PENDING)
    asked = confirming.rounds[0].model_copy(update={"desk": Desk.CLOSED})
    answering = asked.model_copy(update={"number": 2, "event_id": "yes", "desk": Desk.REASONING, "confidence": None})
    proposal = Proposal(
        action=ActionKind.CANCEL_PENDING_ORDER,
        order_id=PENDING,
        asked_in_round=1,
        asked_of=ANN,
        reason="no longer needed",
    )
    confirming = confirming.model_copy(update={"rounds": (asked, answering), "proposal": proposal})
    tried = await conforms(
        make,
        events(
            ReasoningRequested(ticket_id="t1", round=1),
            ReasoningRequested(ticket_id="t2", round=1),
            ReasoningRequested(ticket_id="t3", round=2),
            ReasoningRequested(ticket_id="t4", round=1),
        ),
        tickets=[
            ticket("t1", Desk.REASONING, Label.RETURN_REFUND, "I want to return the rug.", DELIVERED),
            ticket("t2", Desk.REASONING, Label.PAYMENT_BILLING, "How can I pay?"),
            confirming,
            ticket("t4", Desk.REASONING, Label.ADDRESS_CHANGE, "Send it to 2 New Road, 62702 Springfield.", PENDING),
        ],
        shop=EXPORT,
        model=the_wit(),
    )
    assert tried["lying model"] > 100


async def test_effects_conforms() -> None:
    tried = await conforms(
        lambda world: Effects(port=world.effects, shop=world.shop, version="v"),
        events(
            CancelOrder(ticket_id="t1", effect_key="k1", round=1, order_id=PENDING, reason="no longer needed"),
            ReturnItems(
                ticket_id="t2",
                effect_key="k2",
                round=1,
                order_id=DELIVERED,
                item_ids=(f"{DELIVERED}-0",),
                payment_method_id="card",
            ),
            SendReply(ticket_id="t1", effect_key="k3", round=1, to_email=ANN, subject="Re: it", text="Hello"),
        ),
        tickets=[
            ticket("t1", Desk.EFFECTS, Label.CANCEL_ORDER, "Yes", PENDING),
            ticket("t2", Desk.EFFECTS, Label.RETURN_REFUND, "Yes", DELIVERED),
        ],
        shop=EXPORT,
    )
    assert tried["outages"] > 10
