"""Metrics of model calls, in OpenTelemetry's gen_ai names where it has one."""

from decimal import Decimal

from opentelemetry import metrics

from contracts.models import ModelCall
from llm.provider import Prompt


class Metrics:
    """Counts calls, tokens, money and what the cache saved. No content, no ids."""

    def __init__(self, meter: metrics.Meter | None = None) -> None:
        meter = meter or metrics.get_meter("switchyard.llm")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", unit="s")
        self._cost = meter.create_counter("switchyard.llm.cost", unit="{USD}")
        self._hits = meter.create_counter("switchyard.llm.cache.hits")
        self._misses = meter.create_counter("switchyard.llm.cache.misses")
        self._saved = meter.create_counter("switchyard.llm.cache.saved", unit="{USD}")

    def called(self, prompt: Prompt, made: ModelCall) -> None:
        """A provider was called."""
        common: dict[str, str] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": made.provider,
            "gen_ai.request.model": prompt.at.target.model,
            "gen_ai.agent.name": prompt.call.agent,
        }
        failed = {"error.type": made.outcome} if made.outcome not in ("ok", "malformed") else {}
        self._duration.record(made.latency_s, common | failed)
        if made.input_tokens or made.output_tokens:
            self._tokens.record(made.input_tokens, common | {"gen_ai.token.type": "input"})
            self._tokens.record(made.output_tokens, common | {"gen_ai.token.type": "output"})
            self._cost.add(float(made.cost_usd), common)

    def hit(self, prompt: Prompt, saved_usd: Decimal) -> None:
        """An answer was given again."""
        self._hits.add(1, {"gen_ai.agent.name": prompt.call.agent})
        self._saved.add(float(saved_usd), {"gen_ai.agent.name": prompt.call.agent})

    def miss(self, prompt: Prompt) -> None:
        """An answer that might have been there was not."""
        self._misses.add(1, {"gen_ai.agent.name": prompt.call.agent})
