"""Effects: each command once, for the round that waits for it."""

import pytest

from contracts.errors import EffectRefused, StoreUnavailable
from contracts.events import CancelOrder, Outcome, ReviewRequested, SendReply, ShopCommand
from contracts.ports import EffectResult
from contracts.ticket import Desk, Round, Step, Ticket
from contracts.values import Disposition
from tests.unit.agents.kit import ANN, DAN, PENDING, Desks, event_of

COMMAND = CancelOrder(ticket_id="t1", effect_key="k", round=1, order_id=PENDING, reason="no longer needed")


def waiting(sender: str = ANN, desk: Desk = Desk.EFFECTS) -> Ticket:
    round_ = Round(number=1, event_id="e", submission=True, from_email=sender, subject="", body="yes", desk=desk)
    return Ticket(ticket_id="t1", tenant_id="default", rounds=(round_,))


async def test_a_command_handled_again_before_its_step_was_saved_ends_as_the_first_time() -> None:
    at = Desks()
    first = await at.effects.handle(waiting(), event_of(COMMAND))
    again = await at.effects.handle(waiting(), event_of(COMMAND))
    assert first == again
    outcome, reply = first.emits
    assert isinstance(outcome, Outcome)
    assert outcome.disposition is Disposition.ACTED
    assert isinstance(reply, SendReply)
    assert "$40.00" in reply.text


@pytest.mark.parametrize("desk", [Desk.CLOSED, Desk.REASONING])
async def test_a_command_whose_round_does_not_wait_for_it_does_nothing(desk: Desk) -> None:
    at = Desks()
    ticket = waiting(desk=desk)
    assert await at.effects.handle(ticket, event_of(COMMAND)) == Step(ticket)
    assert (await at.order(PENDING)).status == "pending"


async def test_a_command_for_who_is_no_customer_goes_to_a_person() -> None:
    at = Desks()
    outcome = (await at.effects.handle(waiting(DAN), event_of(COMMAND))).emits[0]
    assert isinstance(outcome, Outcome)
    assert outcome.disposition is Disposition.ESCALATED
    assert (await at.order(PENDING)).status == "pending"


async def test_a_reply_is_sent_and_leaves_the_ticket_as_it_is() -> None:
    at = Desks()
    reply = SendReply(ticket_id="t1", effect_key="r", round=1, to_email=ANN, subject="Re: x", text="Hello")
    ticket = waiting(desk=Desk.CLOSED)
    assert await at.effects.handle(ticket, event_of(reply)) == Step(ticket)
    assert len(at.effects_port.entries_of("t1")) == 1


async def test_a_reply_that_cannot_be_sent_goes_to_a_person_and_blocks_nothing() -> None:
    class Refusing:
        async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
            raise EffectRefused("no")

        async def send(self, command: SendReply) -> EffectResult:
            raise EffectRefused("no such mailbox")

    at = Desks()
    effects = type(at.effects)(port=Refusing(), shop=at.shop, version="v")
    reply = SendReply(ticket_id="t1", effect_key="r", round=1, to_email=ANN, subject="Re: x", text="Hello")
    ticket = waiting(desk=Desk.CLOSED)
    step = await effects.handle(ticket, event_of(reply))
    [request] = step.emits
    assert step.ticket == ticket
    assert isinstance(request, ReviewRequested)
    assert request.evidence["refusal"] == "no such mailbox"
    assert request.evidence["command"]["text"] == "Hello"


async def test_a_store_that_is_away_is_the_engines_business() -> None:
    class Away:
        async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
            raise StoreUnavailable("away")

        async def send(self, command: SendReply) -> EffectResult:
            raise StoreUnavailable("away")

    at = Desks()
    effects = type(at.effects)(port=Away(), shop=at.shop, version="v")
    with pytest.raises(StoreUnavailable):
        await effects.handle(waiting(), event_of(COMMAND))
