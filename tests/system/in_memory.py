"""What agents make of support cases without Kafka, database, shadow or recordings: the oracle of replays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.lookup import Lookup
from agents.prompts import Prompt, load_prompt
from agents.reasoning import Reasoning
from agents.triage import Triage
from contracts.events import TicketSubmitted
from contracts.models import ModelRequest
from evals.desks import SHOP, Conversation, Staff, copy_of
from evals.support_cases import Case
from llm.scripted import ScriptedModel
from llm.standin import wit
from ops.rules import read_rules
from ops.settings import AgentSettings
from state.policy_search import HybridSearch
from state.shop import MemoryShop
from state.shop_files import ShopExport

_BY_NATURE = {"cost_usd", "agent_version"}


@dataclass(frozen=True)
class Oracle:
    """Decides each case on a copy of its shop, by the stand-in's wit."""

    export: ShopExport
    prompt: Prompt | None = None  # in place of the one of its agent
    rules: Path | None = None

    async def decides(self, case: Case) -> Sequence[Mapping[str, Any]]:
        """All that is emitted, but for what differs by nature."""
        conversation = Conversation(self._staff(copy_of(self.export)), case.id)
        await conversation.write(TicketSubmitted.model_validate(case.ticket))
        return [payload.model_dump(mode="json", exclude=_BY_NATURE) for payload in conversation.emitted]

    def _staff(self, shop: MemoryShop) -> Staff:
        model = ScriptedModel({"TriageVerdict": _answered, "ReasoningProposal": _answered})
        reasoning = Reasoning(
            model=model,
            shop=shop,
            policy=HybridSearch(shop.policies, lambda _: SHOP),
            version="",
            prompt=self._prompt("reasoning"),
            money_limit_usd=AgentSettings().money_limit_usd,
            rules={"default": read_rules(self.rules)} if self.rules else {},
        )
        return {
            "triage": Triage(model=model, version="", prompt=self._prompt("triage")),
            "lookup": Lookup(shop=shop, version=""),
            "reasoning": reasoning,
        }

    def _prompt(self, agent: str) -> Prompt:
        return self.prompt if self.prompt and self.prompt.name == agent else load_prompt(agent)


async def differing(cases: Sequence[Case], before: Oracle, now: Oracle) -> set[str]:
    """The ids of the cases that the two decide differently."""
    return {case.id for case in cases if await before.decides(case) != await now.decides(case)}


def _answered(request: ModelRequest[Any]) -> Mapping[str, Any]:
    return wit.answer(request.answer.__name__, request.system, request.content)
