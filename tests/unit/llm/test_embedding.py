"""Sentence embeddings without a framework: shape, length, independence of what is asked beside, and bad weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from contracts.errors import Misconfigured
from llm.embedding import SentenceEmbedder, load_embedder, packaged_embedder

RETURNS = ("How do I return my shoes?", "I want to send the sneakers back")
WEATHER = "What is the weather like tomorrow?"


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return packaged_embedder()


def test_texts_of_one_meaning_lie_nearer_than_others(embedder: SentenceEmbedder) -> None:
    first, second, other = embedder.matrix([*RETURNS, WEATHER])
    assert first @ second > 0.7
    assert first @ other < 0.2


def test_vectors_are_those_of_the_published_model(embedder: SentenceEmbedder) -> None:
    """The first components of two sentences, as the framework that the model was trained in gives them."""
    vectors = embedder.matrix(["This is an example sentence", "Each sentence is converted"])
    assert vectors[0][:3] == pytest.approx([0.0676, 0.0635, 0.0487], abs=2e-3)
    assert vectors[1][:3] == pytest.approx([0.0864, 0.1027, 0.0054], abs=2e-3)


def test_a_vector_does_not_depend_on_the_texts_beside_it(embedder: SentenceEmbedder) -> None:
    together = embedder.matrix([*RETURNS, WEATHER, "x " * 300, ""])
    alone = np.concatenate([embedder.matrix([text]) for text in [*RETURNS, WEATHER, "x " * 300, ""]])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)


async def test_embedding_leaves_the_event_loop_free(embedder: SentenceEmbedder) -> None:
    (vector,) = await embedder.embed([WEATHER])
    assert len(vector) == embedder.dimensions == 384
    assert await embedder.embed([]) == []


def test_weights_with_another_digest_are_refused_by_name(tmp_path: Path) -> None:
    folder = _tiny_model(tmp_path)
    with pytest.raises(Misconfigured, match="digest"):
        load_embedder(folder, "0" * 64)


def test_a_folder_of_one_s_own_is_loaded_and_named_by_its_weights(tmp_path: Path) -> None:
    embedder = load_embedder(_tiny_model(tmp_path))
    assert embedder.matrix(["where is my order"]).shape == (1, 8)
    (tmp_path / "config.json").unlink()
    with pytest.raises(Misconfigured, match=r"cannot be read.*config\.json"):
        load_embedder(tmp_path)


def _tiny_model(folder: Path) -> Path:
    """One layer of random weights under a tokenizer of words."""
    random = np.random.default_rng(0)
    layer = "encoder.layer.0"
    square = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    shapes = {f"{name}": (8, 8) for name in [*square, f"{layer}.attention.output.dense"]}
    shapes |= {f"{layer}.intermediate.dense": (16, 8), f"{layer}.output.dense": (8, 16)}
    weights = {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": np.zeros(shape[0], dtype=np.float32) for name, shape in shapes.items()}
    for norm in ("embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"):
        weights |= {f"{norm}.weight": np.ones(8, dtype=np.float32), f"{norm}.bias": np.zeros(8, dtype=np.float32)}
    for name, rows in (("word", 5), ("position", 256), ("token_type", 2)):
        weights[f"embeddings.{name}_embeddings.weight"] = random.normal(size=(rows, 8)).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    words = {"[UNK]": 0, "where": 1, "is": 2, "my": 3, "order": 4}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    return folder
