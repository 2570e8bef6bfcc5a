"""Triage: chooses the desk that answers a customer's message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from agents.answers import TriageVerdict
from agents.followups import answers_proposal, answers_question, may_answer
from agents.order_refs import order_refs
from agents.prompts import Prompt
from agents.quoting import colleagues_note, quoted
from agents.replies import say
from contracts.errors import ModelAnswerUnusable, ModelDenied
from contracts.events import CustomerReplied, Event, TicketSubmitted, TriageRequested
from contracts.models import CallContext, ModelAnswer, ModelCall, ModelRequest
from contracts.ports import ChatModel
from contracts.ticket import Desk, Round, Signature, Step, Ticket, close, escalate, hand_to
from contracts.values import Disposition, Label, Tier

MAX_TEXT_CHARS = 8_000

DESK_OF_LABEL: Mapping[Label, Desk] = MappingProxyType(
    {Label.ORDER_STATUS: Desk.LOOKUP, Label.SHIPPING_INFO: Desk.LOOKUP}
    | dict.fromkeys(
        (
            Label.RETURN_REFUND,
            Label.CANCEL_ORDER,
            Label.CHANGE_ORDER,
            Label.ADDRESS_CHANGE,
            Label.PAYMENT_BILLING,
            Label.ACCOUNT,
            Label.COMPLAINT,
            Label.PRODUCT_QUESTION,
        ),
        Desk.REASONING,
    )
)
"""Labels absent here end at triage: a person asked for, and what is not ours to answer."""


@dataclass(frozen=True, slots=True)
class Triage:
    """Opens a round for every message and hands it to a desk; asks for a person when unsure.

    Consumes TicketSubmitted, CustomerReplied, TriageRequested (a person gives a round back). Emits LookupRequested or
    ReasoningRequested, or the round's outcome.
    A message that answers what we asked goes to the desk that asked, without a verdict of the model.
    """

    model: ChatModel
    version: str
    prompt: Prompt
    min_confidence: float = 0.5  # 0..1; below it, a person
    sure_from: Mapping[Tier, float] = field(default_factory=lambda: {Tier.FAST: 0.5})  # below, the next tier is asked
    name: str = field(default="triage", init=False)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Return the next step; a message submitted before changes nothing. An error of the model passes through."""
        if isinstance(event.data, TriageRequested):
            given_back = ticket.round(event.data.round)
            is_ours = given_back.desk is Desk.TRIAGE
            return await self._triage(ticket, given_back, event) if is_ours else Step(ticket)
        if not isinstance(event.data, TicketSubmitted | CustomerReplied) or _is_known(ticket, event):
            return Step(ticket)
        opened = ticket.open_round(event)
        round_ = opened.rounds[-1]
        refs = order_refs(_text(round_), round_.order_ref)
        if step := _to_who_asked(opened, round_, refs):
            return step
        round_ = round_.model_copy(update={"order_refs": refs})
        return await self._triage(_without_open_ends(opened, round_), round_, event)

    async def _triage(self, ticket: Ticket, round_: Round, event: Event) -> Step:
        if not _text(round_).strip():
            return self._to_a_person(ticket, round_, "the message is empty")
        try:
            answer = await self._ask(round_, ticket, event)
        except ModelAnswerUnusable as error:
            return self._to_a_person(ticket, round_, "the model gave no usable verdict", error.calls)
        except ModelDenied as error:
            return self._to_a_person(ticket, round_, str(error))
        return self._route(ticket, round_, answer)

    async def _ask(self, round_: Round, ticket: Ticket, event: Event) -> ModelAnswer[TriageVerdict]:
        request = ModelRequest(
            tier=self.prompt.tier,
            system=self.prompt.text,
            content="\n".join([*colleagues_note(round_), quoted("ticket", _text(round_), max_chars=MAX_TEXT_CHARS)]),
            answer=TriageVerdict,
            max_output_tokens=300,
            escalate_below=self.sure_from,
            on_breach=self.prompt.on_breach,
            on_outage=self.prompt.on_outage,
        )
        call = CallContext(
            ticket_id=ticket.ticket_id,
            tenant_id=ticket.tenant_id,
            event_id=event.id,
            agent=self.name,
            step="classify",
            deadline=event.deadline,
            agent_version=self.version,
            customer=round_.from_email,
        )
        return await self.model.ask(request, call)

    def _route(self, ticket: Ticket, round_: Round, answer: ModelAnswer[TriageVerdict]) -> Step:
        verdict = answer.value
        told = verdict.model_dump(include={"label", "confidence", "language", "priority"})
        round_ = round_.model_copy(update=told | {"other_labels": verdict.others})
        if verdict.confidence < self.min_confidence:
            return self._to_a_person(ticket, round_, "triage is unsure", answer.calls, verdict)
        if desk := DESK_OF_LABEL.get(verdict.label):
            return hand_to(desk, ticket, round_, answer.calls)
        if verdict.label is Label.HUMAN_AGENT:
            return self._to_a_person(ticket, round_, "the customer asks for a person", answer.calls, verdict)
        by = Signature(self.name, self.version)
        reply = say("out_of_scope", round_.language)
        reason = "out of scope"
        return close(ticket, round_, Disposition.REFUSED, by, reply=reply, reason=reason, calls=answer.calls)

    def _to_a_person(
        self,
        ticket: Ticket,
        round_: Round,
        reason: str,
        calls: Sequence[ModelCall] = (),
        verdict: TriageVerdict | None = None,
    ) -> Step:
        by = Signature(self.name, self.version)
        evidence = {
            "text": _text(round_),
            "verdict": verdict.model_dump(mode="json") if verdict else None,
        }
        reply = say("colleague", round_.language)
        return escalate(ticket, round_, by, reason=reason, reply=reply, evidence=evidence, calls=calls)


def _is_known(ticket: Ticket, event: Event) -> bool:
    submitted = isinstance(event.data, TicketSubmitted) and ticket.already_submitted(event.data)
    return submitted or any(round_.event_id == event.id for round_ in ticket.rounds)


def _text(round_: Round) -> str:
    return f"{round_.subject}\n{round_.body}"[:MAX_TEXT_CHARS]


def _to_who_asked(ticket: Ticket, round_: Round, refs: tuple[str, ...]) -> Step | None:
    """Send an answer to the desk that asked. Such a round keeps `confidence` None: no model judged it."""
    if ticket.proposal and answers_proposal(ticket.proposal, round_, refs):
        asking = ticket.round(ticket.proposal.asked_in_round)
        answering = _answering(round_, asking, asking.label, (ticket.proposal.order_id,))
        return hand_to(Desk.REASONING, ticket, answering)
    if ticket.question and answers_question(ticket, round_, refs):
        asking = ticket.round(ticket.question.asked_in_round)
        answering = _answering(round_, asking, ticket.question.label, refs)
        return hand_to(ticket.question.desk, ticket.model_copy(update={"question": None}), answering)
    return None


def _answering(round_: Round, asking: Round, label: Label | None, refs: tuple[str, ...]) -> Round:
    return round_.model_copy(update={"label": label, "language": asking.language, "order_refs": refs})


def _without_open_ends(ticket: Ticket, round_: Round) -> Ticket:
    """A new request drops what we asked before; somebody else's message leaves a proposal as it is."""
    keeps = ticket.proposal is not None and not may_answer(ticket.proposal, round_)
    return ticket.model_copy(update={"question": None, "proposal": ticket.proposal if keeps else None})
