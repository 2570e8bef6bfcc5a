"""Providers in memory that answer or fail as they are told, and gateways over them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.model_ports import Load
from contracts.values import Tier
from llm.gateway import Gateway
from llm.provider import UNKNOWN, Completion, Key, Prompt, Provider, Target
from ops.models import Shared, gateway_over
from ops.settings import LlmSettings, ModelPrice
from tests.unit.llm.kit import shared

GOOD = '{"label": "account", "confidence": 0.9}'
UNSURE = '{"label": "account", "confidence": 0.2}'


class Told:
    """A provider that does what is next in its list, and the last thing again and again."""

    def __init__(self, *script: str | Exception | None, wait_s: float = 0.0, left: Load = UNKNOWN) -> None:
        self.script = list(script) or [GOOD]
        self.wait_s = wait_s
        self.left = left
        self.prompts: list[Prompt] = []
        self.asked = asyncio.Event()

    async def complete(self, prompt: Prompt) -> Completion:
        self.prompts.append(prompt)
        self.asked.set()
        if self.wait_s:
            await asyncio.sleep(self.wait_s)
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, Exception):
            raise said
        if said is None:
            return Completion(GOOD, f"c{len(self.prompts)}", "m", usage_known=False)
        return Completion(said, f"c{len(self.prompts)}", "m", 100, 10, left=self.left, limit=Load(10, -1, -1, -1))


def over(
    *providers: Provider | Sequence[Provider],
    tiers: Mapping[Tier, Sequence[Provider]] | None = None,
    links: Shared | None = None,
    **settings: Any,
) -> Gateway:
    """A gateway whose fast tier are these providers, named own0:m, own1:m …; several are the keys of one model."""
    targets: dict[Tier, list[Target]] = {}
    prices = {}
    for tier, of_tier in ({Tier.FAST: providers} if tiers is None else tiers).items():
        for number, one in enumerate(of_tier):
            keys = [one] if isinstance(one, Told) else list(one)  # type: ignore[arg-type]
            name = f"own{number}" if tiers is None else f"own-{tier}"
            prices[f"{name}:m"] = ModelPrice(input=1000, output=1000)
            pool = tuple(Key(provider, f"ey-{place}", f"k{place}") for place, provider in enumerate(keys))
            targets.setdefault(tier, []).append(Target(name, "m", pool))
    return gateway_over(targets, LlmSettings(prices=prices, **settings), links or shared())
