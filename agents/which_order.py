"""Asks the customer which order is meant: the question that lookup and reasoning share."""

from agents.replies import ask_which, say
from contracts.facts import Facts, LookupOutcome
from contracts.ticket import Desk, Question, Round, Signature, Step, Ticket, close
from contracts.values import Disposition, Label


def ask_for_the_order(ticket: Ticket, round_: Round, facts: Facts, desk: Desk, by: Signature) -> Step:
    """End a round whose order is not settled: a question, or the plain answer that there are no orders.

    The customer's answer goes back to `desk`.
    """
    if facts.outcome is LookupOutcome.NO_ORDERS:
        return close(ticket, round_, Disposition.ANSWERED, by, reply=say("no_orders", round_.language))
    if facts.outcome is LookupOutcome.UNVERIFIED:  # what was asked of the customer stays open for them
        return close(ticket, round_, Disposition.NEEDS_CUSTOMER, by, reply=say("unverified", round_.language))
    question = Question(desk=desk, label=round_.label or Label.ORDER_STATUS, asked_in_round=round_.number)
    asking = ticket.model_copy(update={"question": question, "proposal": None})
    return close(asking, round_, Disposition.NEEDS_CUSTOMER, by, reply=_question(facts, round_.language))


def _question(facts: Facts, language: str | None) -> str:
    if facts.outcome in (LookupOutcome.NOT_FOUND, LookupOutcome.UNKNOWN_CUSTOMER):
        return say(facts.outcome, language)
    return ask_which(facts.orders, language)
