"""What of a policy a model is shown and may cite, and what a new version does to answers that are kept."""

import json
from dataclasses import replace
from typing import Any

from contracts.models import ModelRequest
from contracts.ticket import Ticket
from contracts.values import Disposition, Label, Tier
from llm.gateway import Gateway
from llm.scripted import ScriptedModel
from state.policy_text import passages_of
from tests.unit.agents.kit import EXPORT, POLICY, Desks
from tests.unit.llm.scripted_providers import Told, over

FILLER = "".join(
    f"\n## Collection {n}\n\n" + " ".join(f"Vase number {n}-{m} is shown in hall {m}." for m in range(25)) + "\n"
    for n in range(60)
)
LONG = POLICY + FILLER
PAYMENT = next(p for p in passages_of(POLICY) if p.heading.endswith("Invoices and payment"))
HALL = next(p for p in passages_of(LONG) if p.heading.endswith("Collection 31"))
QUESTION = "How can I pay? Do I get an invoice?"


def verdict() -> dict[str, Any]:
    label = Label.PAYMENT_BILLING
    return {"label": label, "confidence": 0.9, "language": "en", "priority": "normal", "reason": ""}


def explaining(citation: str) -> dict[str, Any]:
    return {
        "intent": "explain",
        "action": None,
        "cancel_reason": None,
        "items": [],
        "refund_to": None,
        "new_address": None,
        "reply_draft": "You can pay by credit card, by gift card or with PayPal.",
        "citations": [citation],
        "confidence": 0.9,
    }


def desks(policy: str, citation: str = PAYMENT.id) -> Desks:
    scripts = {"TriageVerdict": lambda _: verdict(), "ReasoningProposal": lambda _: explaining(citation)}
    return Desks(model=ScriptedModel(scripts), export=replace(EXPORT, policy_markdown=policy))


async def shown(policy: str, question: str = QUESTION) -> ModelRequest[Any]:
    """What reasoning asks its model."""
    at = desks(policy)
    await at.write(question)
    assert isinstance(at.model, ScriptedModel)
    return at.model.requests[-1]


async def test_of_a_long_policy_the_passages_that_bear_on_the_ticket_are_shown_within_the_budget() -> None:
    content = (await shown(LONG)).content
    assert f'<passage id="{PAYMENT.id}">' in content
    assert len(LONG) > 50_000
    assert len(content) < 26_000


async def test_a_policy_that_fits_is_shown_whole() -> None:
    content = (await shown(POLICY, "qwertz")).content
    assert all(f'<passage id="{passage.id}">' in content for passage in passages_of(POLICY))


async def test_a_passage_that_was_not_shown_cannot_be_cited() -> None:
    assert HALL.id not in (await shown(LONG)).content
    assert (await desks(LONG, HALL.id).write(QUESTION)).disposition is Disposition.ESCALATED
    asked = f"{QUESTION} And where in Collection 31 is vase number 31-7 shown?"
    assert (await desks(LONG, HALL.id).write(asked)).disposition is Disposition.ANSWERED


async def test_the_same_version_and_text_make_the_same_request_and_another_version_another() -> None:
    first = await shown(LONG)
    assert (await shown(LONG)).digest() == first.digest()
    unseen = await shown(LONG.replace("Vase number 31-7 ", "Vase number 31-7b "))
    assert unseen.content.partition("</policy_version>")[2] == first.content.partition("</policy_version>")[2]
    assert unseen.digest() != first.digest()


async def test_a_new_version_of_the_policy_empties_the_cache_and_the_old_one_fills_it_again() -> None:
    strong = Told(json.dumps(explaining(PAYMENT.id)))
    fast = Told(json.dumps(verdict()))
    gateway = over(tiers={Tier.FAST: [fast], Tier.STRONG: [strong]}, chain="cached,fallback,guarded")

    async def asking(policy: str, gateway: Gateway, ticket_id: str) -> int:
        ticket = Ticket(ticket_id=ticket_id, tenant_id="default")
        at = Desks(model=gateway, export=replace(EXPORT, policy_markdown=policy), ticket=ticket)
        assert (await at.write(QUESTION)).disposition is Disposition.ANSWERED
        return len(strong.prompts)

    assert await asking(POLICY, gateway, "t1") == 1
    assert await asking(POLICY, gateway, "t2") == 1
    assert await asking(POLICY + "\nWe also mend lamps.\n", gateway, "t3") == 2
    assert await asking(POLICY, gateway, "t4") == 2
