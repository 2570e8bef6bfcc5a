"""What counts as a yes, a no, a reason and an answer."""

import pytest

from agents.followups import Consent, answers_proposal, answers_question, cancel_reason, consent
from contracts.shop import ActionKind
from contracts.ticket import Desk, Proposal, Question, Round, Ticket
from contracts.values import Label
from tests.unit.agents.kit import ANN, BEN, PENDING

COMPLETE = Proposal(
    action=ActionKind.CANCEL_PENDING_ORDER, order_id=PENDING, asked_in_round=1, asked_of=ANN, reason="no longer needed"
)
LACKING = COMPLETE.model_copy(update={"reason": None})


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        "yes please cancel it",
        "YES!!!",
        "Yes, cancel #W1234567",
        "Yes, I ordered it by mistake.",
        "Yes, I don't need it any more",
        "Hi, yes please. Thanks, Ann",
        "I confirm",
        "Ja, bitte",
        "Sí, confirmo",
        "Oui, je confirme",
        "yes\n\nOn Mon, the shop wrote:\n> confirm with yes, or no, but only if you are sure",
    ],
)
def test_a_clear_yes_is_heard(text: str) -> None:
    assert consent(text) is Consent.YES


@pytest.mark.parametrize("text", ["No", "no, leave it", "don't do it", "Never mind", "Nein", "> yes?\nno thanks"])
def test_a_clear_no_is_heard(text: str) -> None:
    assert consent(text) is Consent.NO


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes but only the lamp",
        "Yes?",
        "yes, to 14 Main Street",
        "yesterday",
        "no wait, yes",
        "ok",
        "si puedes",
        "Ja, aber nur die Lampe",
        "I might say yes",
        "> yes",
        "yes " * 30,
    ],
)
def test_anything_hedged_asked_long_or_quoted_is_unclear(text: str) -> None:
    assert consent(text) is Consent.UNCLEAR


def test_a_reason_is_read_only_where_exactly_one_is_given() -> None:
    assert cancel_reason("it was a mistake") == "ordered by mistake"
    assert cancel_reason("I no longer need it") == "no longer needed"
    assert cancel_reason("a mistake, and I don't need it") is None
    assert cancel_reason("found it cheaper") is None


def test_only_the_one_asked_can_answer_a_proposal() -> None:
    assert answers_proposal(COMPLETE, written("yes"), ())
    assert answers_proposal(COMPLETE, written("yes", ANN.upper()), ())
    assert not answers_proposal(COMPLETE, written("yes", BEN), ())
    assert not answers_proposal(COMPLETE, written("yes", ""), ())


def test_a_yes_that_names_another_order_is_a_new_request() -> None:
    assert answers_proposal(COMPLETE, written(f"yes, {PENDING}"), (PENDING,))
    assert not answers_proposal(COMPLETE, written("yes, #W7777777"), ("#W7777777",))


def test_what_a_proposal_lacks_may_come_without_a_yes_but_a_question_is_new() -> None:
    assert answers_proposal(LACKING, written("ordered by mistake"), ())
    assert not answers_proposal(COMPLETE, written("I ordered by mistake"), ())
    assert not answers_proposal(LACKING, written("where is my other parcel"), ())
    assert not answers_proposal(LACKING, written("word " * 100), ())


def test_a_question_is_answered_by_an_order_number_or_a_few_words_of_the_one_asked() -> None:
    asked = Ticket(
        ticket_id="t",
        tenant_id="default",
        rounds=(written("where is my order"),),
        question=Question(desk=Desk.LOOKUP, label=Label.ORDER_STATUS, asked_in_round=1),
    )
    assert answers_question(asked, written("the first"), ())
    assert answers_question(asked, written("a longer text that names the one I mean, thank you", ANN), (PENDING,))
    assert not answers_question(asked, written("I would like to send back my old lamp and get a refund"), ())
    assert not answers_question(asked, written("the first", BEN), ())


def written(body: str, sender: str = ANN) -> Round:
    return Round(number=1, event_id="e", submission=True, from_email=sender, subject="", body=body)
