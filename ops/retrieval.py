"""Policy search put together: over the database, with the embedding model where it is installed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ops.embedding import HOW_TO_INSTALL, installed_embedder
from ops.settings import Settings
from state.policies import PostgresPolicies
from state.policy_search import HybridSearch

if TYPE_CHECKING:
    import asyncpg


_log = logging.getLogger(__name__)


def policy_search(pool: asyncpg.Pool, settings: Settings) -> HybridSearch:
    """Search in the policies of a migrated database; says so where it must do without vectors."""
    embedder = installed_embedder()
    if embedder is None:
        _log.warning("policy search goes by words alone: for the embedding model, %s", HOW_TO_INSTALL)
    return HybridSearch(PostgresPolicies(pool), settings.shop_of, embedder)
