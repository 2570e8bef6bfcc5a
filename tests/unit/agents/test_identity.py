"""Senders who are not verified: general answers, nothing of an account, nothing changed."""

import pytest

from agents.identity import EVERY_TENANT, Senders
from contracts.events import CustomerReplied, ShopCommand
from contracts.facts import LookupOutcome
from contracts.ticket import Ticket
from contracts.values import Disposition
from tests.unit.agents.kit import ANN, DELIVERED, PENDING, Desks, event_of

STRANGER = "nobody@elsewhere.example"


@pytest.mark.parametrize("body", [f"where is order {DELIVERED}?", "where is my order?", f"cancel {PENDING} please"])
async def test_whoever_is_not_verified_is_told_the_same_as_a_stranger(body: str) -> None:
    known = await Desks().write(body, ANN, sender_verified=False)
    unknown = await Desks().write(body, STRANGER, sender_verified=False)
    assert known.reply == unknown.reply
    assert known.disposition is unknown.disposition is Disposition.NEEDS_CUSTOMER
    assert known.lookup is not None
    assert known.lookup.outcome is LookupOutcome.UNVERIFIED
    assert "sign in" in known.reply
    for secret in ("Lamp", "Rug", "TRACK", "delivered", "pending"):
        assert secret not in known.reply


async def test_a_yes_of_somebody_unverified_carries_nothing_out_and_leaves_the_question_open() -> None:
    desks = Desks()
    await desks.write(f"please cancel {PENDING}, I no longer need it")
    assert desks.ticket.proposal is not None
    refused = await desks.write("yes", ANN, sender_verified=False)
    assert refused.disposition is Disposition.NEEDS_CUSTOMER
    assert not [payload for payload in desks.emitted if isinstance(payload, ShopCommand)]
    carried_out = await desks.write("yes, please", ANN, sender_verified=True)
    assert carried_out.disposition is Disposition.ACTED


async def test_a_general_question_is_answered_all_the_same() -> None:
    outcome = await Desks().write("How can I pay? Do you take gift cards?", ANN, sender_verified=False)
    assert outcome.disposition is Disposition.ANSWERED


async def test_silence_means_what_the_tenant_says() -> None:
    ticket = Ticket(ticket_id="t", tenant_id="acme")
    unsaid = ticket.open_round(event_of(CustomerReplied(ticket_id="t", from_email=ANN, body="hello"))).rounds[0]
    assert Senders().is_verified(ticket, unsaid)
    assert Senders(frozenset({"other"})).is_verified(ticket, unsaid)
    for unverified in ("acme", EVERY_TENANT):
        assert not Senders(frozenset({unverified})).is_verified(ticket, unsaid)
        said = unsaid.model_copy(update={"sender_verified": True})
        assert Senders(frozenset({unverified})).is_verified(ticket, said)


async def test_the_same_words_from_a_verified_sender_are_a_message_of_their_own() -> None:
    desks = Desks()
    await desks.write(f"where is order {DELIVERED}?", ANN, sender_verified=False)
    told = await desks.write(f"where is order {DELIVERED}?", ANN, sender_verified=True)
    assert told.orders == (DELIVERED,)


def test_a_reply_without_an_address_is_as_good_as_the_message_before_it() -> None:
    ticket = Ticket(ticket_id="t", tenant_id="default")
    first = CustomerReplied(ticket_id="t", from_email=ANN, body="hello", sender_verified=False)
    ticket = ticket.open_round(event_of(first)).open_round(event_of(CustomerReplied(ticket_id="t", body="and?"), "e2"))
    assert (ticket.rounds[1].from_email, ticket.rounds[1].sender_verified) == (ANN, False)
