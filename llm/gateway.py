"""The gateway between agents and providers: journal, cache, provider, in this order."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace

from contracts.errors import Misconfigured
from contracts.models import AnswerT, CallContext, ModelAnswer, ModelCall, ModelRequest
from contracts.ports import AnswerCache, Journal
from contracts.values import Tier
from llm.asking import ask_and_repair
from llm.chain import Reply, cached, compose, kept, recalled
from llm.judge import MAX_ANSWER_BYTES, usable
from llm.prices import Prices
from llm.provider import Completion, Prompt, Provider
from llm.tracing import chat_span, tell_usage

_DAY_S = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Route:
    """Where a tier's requests go; name and model as the price table spells them."""

    provider: Provider
    provider_name: str
    model: str


class Gateway:
    """Answers agents: what was paid for is not bought again, what comes back is valid, each call is priced."""

    def __init__(
        self,
        routes: Mapping[Tier, Route],
        prices: Prices,
        journal: Journal,
        cache: AnswerCache,
        *,
        default_timeout_s: float = 60,
        cache_ttl_s: float = _DAY_S,
        tracer: trace.Tracer | None = None,
    ) -> None:
        """`routes` holds the tiers that will be asked. Raises Misconfigured: a route's model has no price."""
        for route in routes.values():
            prices.check(route.provider_name, route.model)
        self._routes = dict(routes)
        self._prices = prices
        self._default_timeout_s = default_timeout_s
        self._tracer = tracer or trace.get_tracer("switchyard.llm")
        self._ask = compose(
            self._buy,
            recalled(journal),
            cached(cache, cache_ttl_s),
            kept(journal),  # inside the cache: what is paid is safe before anything else is tried
        )

    async def ask(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        """A valid answer, repaired at most once; see `contracts.ports.ChatModel`.

        Raises Misconfigured: the tier has no route.
        """
        if request.tier not in self._routes:
            raise Misconfigured(f"no model is set for the tier {request.tier}")
        return await ask_and_repair(self._ask, request, call, default_timeout_s=self._default_timeout_s)

    async def _buy(self, prompt: Prompt) -> Reply:
        route = self._routes[prompt.request.tier]
        started_s = time.monotonic()
        with chat_span(self._tracer, route.provider_name, route.model, prompt) as span:
            completion = await route.provider.complete(prompt)
            tell_usage(span, completion)
        paid = self._call(prompt, route, completion, time.monotonic() - started_s)
        # What is too long to be used is kept just long enough to be refused again.
        return Reply(text=completion.text[: MAX_ANSWER_BYTES + 1], paid=paid)

    def _call(self, prompt: Prompt, route: Route, completion: Completion, latency_s: float) -> ModelCall:
        return ModelCall(
            call_id=completion.call_id,
            step=prompt.call.step,
            tier=prompt.request.tier,
            provider=route.provider_name,
            model=completion.model,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            cache_read_tokens=completion.cache_read_tokens,
            cache_write_tokens=completion.cache_write_tokens,
            cost_usd=self._prices.cost_usd(route.provider_name, route.model, completion),
            latency_s=round(latency_s, 6),
            outcome="ok" if usable(completion.text, prompt.request.answer) else "malformed",
        )
