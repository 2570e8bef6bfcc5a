"""The gateway between agents and providers: one port in front, a chain behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from contracts.errors import BudgetSpent, Misconfigured, ModelDenied, ModelsAway
from contracts.models import AnswerT, CallContext, Degrade, ModelAnswer, ModelRequest
from contracts.values import Tier
from llm.asking import ask_and_repair
from llm.chain import Ask, Reply
from llm.prices import Prices
from llm.provider import Prompt, Target


class Gateway:
    """Answers agents: tiers become models, an unsure answer is asked of the next tier, a breach is met as asked."""

    def __init__(
        self,
        tiers: Mapping[Tier, Sequence[Target]],
        ask: Ask,
        prices: Prices,
        *,
        away: Callable[[Sequence[Target]], bool] = lambda _: False,
        default_timeout_s: float = 60,
    ) -> None:
        """`tiers` holds those that can answer, each with its targets in order; `ask` is the chain.

        Raises Misconfigured: a target's model has no price.
        """
        for target in (target for targets in tiers.values() for target in targets):
            prices.check(target.provider_name, target.model)
        self._tiers = {tier: tuple(targets) for tier, targets in tiers.items() if targets}
        self._ask = ask
        self._away = away
        self._default_timeout_s = default_timeout_s

    def is_away(self) -> bool:
        """Whether no model of any tier may be asked now."""
        return all(self._away(targets) for targets in self._tiers.values())

    async def ask(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        """A valid answer, repaired at most once; see `contracts.ports.ChatModel`.

        Raises Misconfigured: the tier has no model.
        """
        answer = await self._ask_or_cheaper(request, call)
        above = request.tier.next
        if above not in self._tiers or not _is_unsure(answer, request.escalate_below.get(request.tier)):
            return answer
        surer = await self.ask(replace(request, tier=above), call)
        return ModelAnswer(surer.value, (*answer.calls, *surer.calls))

    async def _ask_or_cheaper(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        try:
            return await self._ask_tier(request, call)
        except (BudgetSpent, ModelsAway) as error:
            wanted = request.on_breach if isinstance(error, BudgetSpent) else request.on_outage
            below = request.tier.cheaper
            if wanted is Degrade.CHEAPER and below in self._tiers:
                return await self._ask_or_cheaper(replace(request, tier=below), call)
            if wanted is Degrade.PERSON and isinstance(error, ModelsAway):
                raise ModelDenied("no model answers") from error
            raise

    async def _ask_tier(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        if request.tier not in self._tiers:
            raise Misconfigured(f"no model is set for the tier {request.tier}")
        targets = self._tiers[request.tier]

        async def ask_targets(prompt: Prompt) -> Reply:
            return await self._ask(replace(prompt, targets=targets))

        return await ask_and_repair(ask_targets, request, call, default_timeout_s=self._default_timeout_s)


def _is_unsure(answer: ModelAnswer[AnswerT], below: float | None) -> bool:
    confidence = getattr(answer.value, "confidence", None)
    return below is not None and isinstance(confidence, float) and confidence < below
