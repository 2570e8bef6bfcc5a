"""The agents of a replay: those that ship, around the shadow's tables, with no way to the world."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agents.effects import Effects
from agents.review import Review
from contracts.ports import Agent
from ops.rules import rules_of_tenants
from ops.settings import Settings
from ops.versions import agent_version
from ops.wiring import AGENTS, Making, Needs
from state.effects import PostgresEffects
from state.reviews import PostgresReviews

if TYPE_CHECKING:
    import asyncpg

    from agents.prompts import Prompt
    from ops.wiring import OpenModel

Staff = Mapping[str, Agent]
"""The agents by their consumer groups."""


async def staff_of(
    settings: Settings,
    shadow: asyncpg.Pool,
    open_model: OpenModel,
    open_until_end: contextlib.AsyncExitStack,
    prompt_of: Callable[[str], Prompt] | None = None,
) -> Staff:
    """Every agent. Effects change the shadow's rows and reviews wait in its table, wherever the live ones go."""
    staff: dict[str, Agent] = {}
    for name, wired in AGENTS.items():
        making = Making(name, settings, shadow, open_until_end, Needs(), prompt_of, open_model)
        build = _IN_A_SHADOW.get(name)
        staff[name] = build(making) if build else await wired.build(making)
    return staff


def _effects(making: Making) -> Agent:
    port = PostgresEffects(making.pool, making.settings.shop_of)
    return Effects(port=port, shop=making.shop, version=agent_version(making.name))


def _review(making: Making) -> Agent:
    policy_of, rules = making.settings.review.policy_of, making.settings.agents.rules
    return Review(
        reviews=PostgresReviews(making.pool),
        shop=making.shop,
        version=agent_version(making.name, files=[rules[tenant_id] for tenant_id in sorted(rules)]),
        due_after=lambda tenant_id: policy_of(tenant_id).after,
        rules=rules_of_tenants(rules),
    )


_IN_A_SHADOW: Mapping[str, Callable[[Making], Agent]] = {"effects": _effects, "review": _review}
