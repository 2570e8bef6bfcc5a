"""Reasoning: settles what needs the policy. A model proposes in a closed schema; code decides."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace

from agents import deciding, guard
from agents.answers import Intent, ReasoningProposal
from agents.case import MAX_POLICY_CHARS, Case, OrderCase
from agents.claims import repeats
from agents.details import plainly_proposed, proposed
from agents.facts import Found, find
from agents.followups import may_answer
from agents.identity import Senders
from agents.prompts import Prompt
from agents.rules import RULES, Rules
from agents.which_order import ask_for_the_order
from contracts.errors import ModelAnswerUnusable, ModelDenied, ModelsAway
from contracts.events import Event, ReasoningRequested
from contracts.models import CallContext, ModelAnswer, ModelRequest, Reuse
from contracts.ports import ChatModel, PolicySearch, Shop
from contracts.shop import ActionKind
from contracts.ticket import Desk, Proposal, Question, Round, Signature, Step, Ticket, close
from contracts.values import Disposition, Label

_SWAPS = frozenset({ActionKind.MODIFY_PENDING_ORDER_ITEMS, ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS})


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Decides about an order by the policy's rules in code, and answers questions from the policy's text.

    Consumes ReasoningRequested. Emits the round's outcome, or a shop command once the customer said yes to
    exactly that. What the policy forbids is refused without asking a model. New items are found among the variants
    of the same products; where the customer's words do not settle them, a person does.
    """

    model: ChatModel
    shop: Shop
    policy: PolicySearch
    version: str
    prompt: Prompt
    money_limit_usd: float  # above it, a person decides
    min_confidence: float = 0.5  # 0..1
    senders: Senders = field(default_factory=Senders)
    rules: Mapping[str, Rules] = field(default_factory=dict)  # by tenant; those shipped for all others
    name: str = field(default="reasoning", init=False)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Decide the round if it is still at this desk. A model that is away or overloaded passes through."""
        if not isinstance(event.data, ReasoningRequested):
            return Step(ticket)
        round_ = ticket.round(event.data.round)
        if round_.desk is not Desk.REASONING:
            return Step(ticket)
        passages = await self.shop.policy(ticket.tenant_id)
        rules = self.rules.get(ticket.tenant_id, RULES)
        case = Case(ticket=ticket, round_=round_, passages=passages, answered=_answered(ticket, round_), rules=rules)
        retrieved = await self.policy.search(ticket.tenant_id, case.query, max_chars=MAX_POLICY_CHARS)
        case = replace(case, retrieved=retrieved)
        if round_.label and round_.label in guard.ACTIONS_OF_LABEL:
            return await self._settle_action(case, round_.label, event)
        return await self._answer_from_policy(case, event)

    async def _settle_action(self, asked: Case, label: Label, event: Event) -> Step:
        found = await self._find(asked)
        case = _on_order(asked, found)
        if case is None:
            round_ = asked.round_.model_copy(update={"lookup": found.facts})
            return ask_for_the_order(asked.ticket, round_, found.facts, Desk.REASONING, self._signature)
        case = await self._with_products(case, label)
        case = case.assessing(case.answered.action if case.answered else guard.ACTIONS_OF_LABEL[label][0])
        if not case.eligible:
            return deciding.refuse(case, self._signature)
        heard = deciding.hear(case, case.answered, self._signature, self.money_limit_usd) if case.answered else None
        return heard or await self._propose(case, label, event)

    async def _propose(self, case: OrderCase, label: Label, event: Event) -> Step:
        assessed = case.round_.assessment[0].action
        expected = {assessed, *guard.ACTIONS_OF_LABEL[label]}
        answer = await self._consult(case, event, lambda wish: _doubt_about_action(expected, wish))
        if isinstance(answer, Step):
            return answer
        action = answer.value.action or assessed
        case = case.assessing(action)
        if not case.eligible:
            return deciding.refuse(case, self._signature, answer.calls)
        proposal = proposed(case, action, answer.value)
        return deciding.ask(case, proposal, self._signature, self.money_limit_usd, answer.calls)

    async def _answer_from_policy(self, case: Case, event: Event) -> Step:
        if case.round_.order_refs:
            found = await self._find(case)
            case = replace(case, found=found, round_=case.round_.model_copy(update={"lookup": found.facts}))
        if not case.passages:
            return deciding.to_a_person(case, self._signature, "there is no policy to answer from")
        answer = await self._consult(case, event, lambda wish: _doubt_about_draft(case, wish, self.prompt.text))
        if isinstance(answer, Step):
            return answer
        ticket, disposition = case.ticket, Disposition.ANSWERED
        if answer.value.intent is Intent.ASK and case.round_.label:
            asked = Question(desk=Desk.REASONING, label=case.round_.label, asked_in_round=case.round_.number)
            ticket, disposition = ticket.model_copy(update={"question": asked}), Disposition.NEEDS_CUSTOMER
        reply = answer.value.reply_draft.strip()
        return close(ticket, case.round_, disposition, self._signature, reply=reply, calls=answer.calls)

    async def _consult(
        self, case: Case, event: Event, doubt_about: Callable[[ReasoningProposal], str | None]
    ) -> ModelAnswer[ReasoningProposal] | Step:
        """An answer to rely on, or else the step that hands the round to a person."""
        try:
            answer = await self._ask(case, event)
        except ModelAnswerUnusable as error:
            return deciding.to_a_person(case, self._signature, "the model gave no usable answer", calls=error.calls)
        except (ModelDenied, ModelsAway) as error:
            if settled := self._settled_plainly(case):
                return settled
            if isinstance(error, ModelsAway):
                raise
            return deciding.to_a_person(case, self._signature, str(error))
        doubt = self._doubt(case, answer.value) or doubt_about(answer.value)
        return deciding.to_a_person(case, self._signature, doubt, answer.value, answer.calls) if doubt else answer

    def _settled_plainly(self, case: Case) -> Step | None:
        """The question for the yes, where code alone can tell what is wanted."""
        if isinstance(case, OrderCase) and (proposal := plainly_proposed(case)):
            return deciding.ask(case, proposal, self._signature, self.money_limit_usd)
        return None

    async def _ask(self, case: Case, event: Event) -> ModelAnswer[ReasoningProposal]:
        request = ModelRequest(
            tier=self.prompt.tier,
            system=self.prompt.text,
            content=case.content(),
            answer=ReasoningProposal,
            max_output_tokens=2_000,
            reuse=Reuse.TENANT if case.found is None else Reuse.NEVER,  # no customer's facts in it
            on_breach=self.prompt.on_breach,
            on_outage=self.prompt.on_outage,
        )
        call = CallContext(
            ticket_id=case.ticket.ticket_id,
            tenant_id=case.ticket.tenant_id,
            event_id=event.id,
            agent=self.name,
            step="propose",
            deadline=event.deadline,
            agent_version=self.version,
            customer=case.round_.from_email,
        )
        return await self.model.ask(request, call)

    async def _with_products(self, case: OrderCase, label: Label) -> OrderCase:
        if not _SWAPS & set(guard.ACTIONS_OF_LABEL[label]):
            return case
        ids = {item.product_id for item in case.order.items}
        return replace(case, products=await self.shop.products(case.ticket.tenant_id, ids))

    async def _find(self, case: Case) -> Found:
        return await find(self.shop, case.ticket, case.round_, self.senders)

    def _doubt(self, case: Case, wish: ReasoningProposal) -> str | None:
        """Why this answer is not to be relied on, if it is not."""
        shown = {passage.id for passage in case.shown()}
        if wish.intent is Intent.HUMAN:
            return "the model asks for a person"
        if wish.confidence < self.min_confidence:
            return "the model is unsure"
        if (shown and not wish.citations) or not shown.issuperset(wish.citations):
            return "the answer does not rest on passages of the policy"
        return None

    @property
    def _signature(self) -> Signature:
        return Signature(self.name, self.version)


def _answered(ticket: Ticket, round_: Round) -> Proposal | None:
    """The proposal that triage sent this round on for: it then judged nothing, and named the proposal's order."""
    proposal = ticket.proposal
    if proposal is None or round_.confidence is not None or proposal.asked_in_round >= round_.number:
        return None
    return proposal if may_answer(proposal, round_) and round_.order_refs == (proposal.order_id,) else None


def _on_order(case: Case, found: Found) -> OrderCase | None:
    if found.customer is None or found.only_order is None:
        return None
    return OrderCase(
        ticket=case.ticket,
        round_=case.round_.model_copy(update={"lookup": found.facts}),
        passages=case.passages,
        retrieved=case.retrieved,
        answered=case.answered,
        rules=case.rules,
        found=found,
        customer=found.customer,
        order=found.only_order,
    )


def _doubt_about_action(expected: Set[ActionKind], wish: ReasoningProposal) -> str | None:
    if wish.action is None or wish.action in expected:
        return None
    return f"the model would {wish.action}, the request is for {' or '.join(sorted(expected))}"


def _doubt_about_draft(case: Case, wish: ReasoningProposal, instructions: str) -> str | None:
    if wish.intent is Intent.ACT:
        return "the model would act where no action belongs"
    if not wish.reply_draft.strip():
        return "the model drafted no reply"
    if case.unsupported(wish.reply_draft):
        return "the draft says what our policy and rows do not"
    if repeats(wish.reply_draft, instructions):
        return "the draft tells our instructions"
    return None
