"""Policies for operators: loading, listing, showing and searching what a tenant's shop goes by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.errors import Misconfigured
from contracts.shop import Passage
from ops.retrieval import policy_search
from ops.settings import Settings
from ops.shops import known_tenant
from ops.wiring import database
from state.policies import PolicyVersion, PostgresPolicies
from state.policy_files import read_policy


async def load_policy(directory: Path, tenant: str | None, settings: Settings) -> dict[str, Any]:
    """Put the policy of a directory in force, then make what searching it needs."""
    tenant_id = known_tenant(tenant, settings)
    passages = read_policy(directory)
    async with database(settings) as pool:
        loaded = await PostgresPolicies(pool).load(settings.shop_of(tenant_id), passages)
        await policy_search(pool, settings).prepare(tenant_id)
    return {"version": loaded.version, "changed": loaded.changed, "passages": len(passages)}


async def list_versions(tenant: str | None, settings: Settings) -> Sequence[PolicyVersion]:
    """Every version of the tenant's policy, the one loaded last first."""
    shop_id = settings.shop_of(known_tenant(tenant, settings))
    async with database(settings) as pool:
        return await PostgresPolicies(pool).versions(shop_id)


async def read_passages(version: str | None, tenant: str | None, settings: Settings) -> tuple[str, Sequence[Passage]]:
    """A version, whole or by how it begins, and its passages; the one in force when none is named.

    Raises Misconfigured: there is no such version, or more than one begins so.
    """
    shop_id = settings.shop_of(known_tenant(tenant, settings))
    async with database(settings) as pool:
        policies = PostgresPolicies(pool)
        chosen = _chosen(await policies.versions(shop_id), version)
        return chosen, await policies.passages(shop_id, chosen)


async def search_policy(text: str, limit: int, tenant: str | None, settings: Settings) -> Sequence[Passage]:
    """The passages of the policy in force that bear most on the text, best first."""
    tenant_id = known_tenant(tenant, settings)
    async with database(settings) as pool:
        return (await policy_search(pool, settings).ranked(tenant_id, text))[:limit]


def _chosen(versions: Sequence[PolicyVersion], wanted: str | None) -> str:
    fitting = [v.version for v in versions if (v.in_force if wanted is None else v.version.startswith(wanted))]
    if not fitting:
        what = "no policy was loaded" if wanted is None else f"there is no version {wanted} of the policy"
        raise Misconfigured(f"{what}; `switchyard policy list` shows what there is, `switchyard policy load` adds one")
    if len(fitting) > 1:
        raise Misconfigured(f"{len(fitting)} versions begin with {wanted}: give more of its digits")
    return fitting[0]
