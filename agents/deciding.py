"""Deciding: every way a round about an order can end, by the guard's rules. Nothing here reads or asks."""

from collections.abc import Sequence
from decimal import Decimal

from agents import action_replies, guard
from agents.answers import ReasoningProposal
from agents.case import Case, OrderCase
from agents.commands import command_for
from agents.details import alternative, proposed, with_stated_reason
from agents.followups import Consent, consent
from agents.replies import say
from agents.rules import Detail
from contracts.models import ModelCall
from contracts.ticket import Desk, Proposal, Round, Signature, Step, Ticket, close, escalate
from contracts.values import Disposition

_SAID_IN_WORDS = {Detail.NEW_ITEMS, Detail.PAY_WITH}  # a model reads them; when it cannot, a person does


def refuse(case: OrderCase, by: Signature, calls: Sequence[ModelCall] = ()) -> Step:
    """Say no with the policy's sentence. What is possible instead waits for the customer's yes."""
    left_open = None if case.answered else case.ticket.proposal
    ticket = case.ticket.model_copy(update={"proposal": alternative(case) or left_open})
    reply = action_replies.refusal(case.order, case.round_.assessment)
    reason = f"the order is {case.order.status}"
    return close(ticket, case.round_, Disposition.REFUSED, by, reply=reply, reason=reason, calls=calls)


def hear(case: OrderCase, answered: Proposal, by: Signature, money_limit_usd: float) -> Step | None:
    """What the customer's answer to a proposal leads to; None when only a model could tell what it says."""
    said = consent(case.round_.body)
    proposal = with_stated_reason(answered, case.round_.body)
    if said is Consent.NO:
        return _leave_as_it_is(case, by)
    if _SAID_IN_WORDS & set(guard.missing(proposal, case.rules)):
        return None
    if said is Consent.UNCLEAR:
        return ask(case, proposal, by, money_limit_usd) if proposal != answered else None
    if guard.missing(proposal, case.rules):
        return ask(case, proposal, by, money_limit_usd)
    return _carry_out(case, proposal, by, money_limit_usd)


def ask(
    case: OrderCase, proposal: Proposal, by: Signature, money_limit_usd: float, calls: Sequence[ModelCall] = ()
) -> Step:
    """Ask the customer for what is missing, or for the yes; a person has it where the money is above the limit.

    What the customer was asked to say in words is asked once: when no rule of ours can read it, a person can.
    """
    was_asked = case.answered is not None and case.answered.action is proposal.action
    if was_asked and _SAID_IN_WORDS & set(guard.missing(proposal, case.rules)):
        return to_a_person(case, by, "the customer has said what to change", calls=calls, proposal=proposal)
    amount = guard.money_moved(proposal, case.order, case.products, case.rules)
    asked = guard.priced(proposal, case.order, case.products, case.rules)
    if abs(amount) > money_limit_usd:
        return to_a_person(case, by, "the amount is above the limit", calls=calls, proposal=asked)
    if not guard.missing(asked, case.rules) and (objection := _objection(case, asked, confirmed=True)):
        # nobody is asked to say yes to what a yes cannot do
        return to_a_person(case, by, objection, calls=calls, proposal=asked)
    asked = asked.model_copy(update={"asked_in_round": case.round_.number})
    ticket = case.ticket.model_copy(update={"proposal": asked, "question": None})
    return close(ticket, case.round_, Disposition.NEEDS_CUSTOMER, by, reply=_question(case, asked, amount), calls=calls)


def to_a_person(
    case: Case,
    by: Signature,
    reason: str,
    wish: ReasoningProposal | None = None,
    calls: Sequence[ModelCall] = (),
    proposal: Proposal | None = None,
) -> Step:
    """Hand the round to a person with everything known. An open proposal of this customer ends here.

    What the person can have done by approving is the proposal, or where there is none, the sending of the draft.
    """
    proposal = proposal or _wished(case, wish)
    evidence = {
        "text": case.said,
        "lookup": case.round_.lookup.model_dump(mode="json") if case.round_.lookup else None,
        "assessment": [assessment.model_dump(mode="json") for assessment in case.round_.assessment],
        "answered": case.answered.model_dump(mode="json") if case.answered else None,
        "model": wish.model_dump(mode="json") if wish else None,
        "proposal": proposal.model_dump(mode="json") if proposal else None,
        "confirmed": case.answered is not None and consent(case.round_.body) is Consent.YES,
        "draft": wish.reply_draft.strip() if wish else "",
        "passages": [shown.model_dump(mode="json") for shown in case.shown() if wish and shown.id in wish.citations],
    }
    ticket = case.ticket.model_copy(update={"proposal": None}) if case.answered else case.ticket
    reply = say("colleague", case.round_.language)
    return escalate(ticket, case.round_, by, reason=reason, reply=reply, evidence=evidence, calls=calls)


def commanded(proposal: Proposal, ticket: Ticket, round_: Round) -> Step:
    """Order what is proposed; the round waits at the effects desk until it is done."""
    waiting = round_.model_copy(update={"desk": Desk.EFFECTS})
    return Step(ticket.with_round(waiting), (command_for(proposal, ticket, round_),))


def _wished(case: Case, wish: ReasoningProposal | None) -> Proposal | None:
    """What the model would have done, made of the customer's own rows."""
    if wish is None or wish.action is None or not isinstance(case, OrderCase):
        return None
    return guard.priced(proposed(case, wish.action, wish), case.order, case.products, case.rules)


def _leave_as_it_is(case: OrderCase, by: Signature) -> Step:
    ticket = case.ticket.model_copy(update={"proposal": None})
    return close(ticket, case.round_, Disposition.ANSWERED, by, reply=action_replies.NOTHING_CHANGED)


def _carry_out(case: OrderCase, proposal: Proposal, by: Signature, money_limit_usd: float) -> Step:
    if objection := _objection(case, proposal, confirmed=consent(case.round_.body) is Consent.YES):
        return to_a_person(case, by, objection, proposal=proposal)
    amount = guard.money_moved(proposal, case.order, case.products, case.rules)
    if abs(amount) > money_limit_usd:
        return to_a_person(case, by, "the amount is above the limit", proposal=proposal)
    return commanded(proposal, case.ticket.model_copy(update={"proposal": None}), case.round_)


def _objection(case: OrderCase, proposal: Proposal, *, confirmed: bool) -> str | None:
    return guard.objection(
        proposal,
        case.customer,
        case.order,
        confirmed=confirmed,
        products=case.products,
        rules=case.rules,
        passages=case.passages,
    )


def _question(case: OrderCase, proposal: Proposal, amount: Decimal) -> str:
    known = action_replies.Known(proposal, case.order, case.customer, case.products, amount)
    if missing := guard.missing(proposal, case.rules):
        return action_replies.request(missing, known)
    return action_replies.confirmation(known)
