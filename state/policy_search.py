"""Policy search: the passages of the policy in force that bear on a text, by words and, with a model, by meaning."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from contracts.ports import Embedder
from contracts.shop import Passage
from state.policies import Policies
from state.policy_index import Vectors, WordIndex, by_vectors, by_words, fused, sentences

_KEPT = 16  # policies held in memory, the ones used last
_EMBEDDED_AT_ONCE = 64
_FRAME_CHARS = 40  # what a passage takes in a prompt besides its id, heading and text
_VECTOR = np.dtype("<f4")


@dataclass(slots=True)
class _Policy:
    """A version of a shop's policy; what only a search needs comes with the first one."""

    shop_id: str
    passages: Sequence[Passage]
    words: WordIndex | None = None
    vectors: Vectors | None = None
    preparing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def texts(self) -> list[str]:
        return [f"{passage.heading}\n{passage.text}" for passage in self.passages]


class HybridSearch:
    """PolicySearch by BM25 and, where there is an embedder, by vectors, fused by rank.

    The same version and text give the same passages. A version's vectors are made once and kept with it. An
    embedder takes memory: `embedder` makes it when the first policy is searched that does not fit as a whole.
    """

    def __init__(
        self, policies: Policies, shop_of: Callable[[str], str], embedder: Callable[[], Embedder] | None = None
    ) -> None:
        self._policies = policies
        self._shop_of = shop_of
        self._make_embedder = embedder
        self._embedder: Embedder | None = None
        self._held: dict[tuple[str, str], _Policy] = {}

    async def search(self, tenant_id: str, text: str, *, max_chars: int) -> Sequence[Passage]:
        """The passages that bear most on the text, in the policy's order; see the port."""
        policy = await self._policy(tenant_id)
        if sum(map(_size, policy.passages)) <= max_chars:
            return policy.passages
        return _fitting(policy.passages, await self._order(policy, text), max_chars)

    async def ranked(self, tenant_id: str, text: str) -> Sequence[Passage]:
        """Every passage of the policy in force, the one that bears most on the text first."""
        policy = await self._policy(tenant_id)
        return [policy.passages[place] for place in await self._order(policy, text)]

    async def prepare(self, tenant_id: str) -> None:
        """Make and keep what searching the policy in force needs, so that the first search need not."""
        policy = await self._policy(tenant_id)
        if policy.passages:
            await self._prepared(policy)

    async def _policy(self, tenant_id: str) -> _Policy:
        shop_id = self._shop_of(tenant_id)
        version = await self._policies.in_force(shop_id)
        if version is None:
            return _Policy(shop_id, ())
        policy = self._held.pop((shop_id, version), None)
        if policy is None:
            policy = _Policy(shop_id, await self._policies.passages(shop_id, version))
        policy = self._held.setdefault((shop_id, version), policy)
        while len(self._held) > _KEPT:
            del self._held[next(iter(self._held))]
        return policy

    async def _order(self, policy: _Policy, text: str) -> list[int]:
        if not policy.passages:
            return []
        words = await self._prepared(policy)
        asked = sentences(text)
        if self._embedder is None or policy.vectors is None:
            return fused([by_words(words, asked)])
        vectors = np.array(await self._embedder.embed(asked), dtype=_VECTOR)
        return fused([by_words(words, asked), by_vectors(policy.vectors, vectors)])

    async def _prepared(self, policy: _Policy) -> WordIndex:
        async with policy.preparing:
            if policy.words is None:
                policy.vectors = await self._vectors(policy)
                policy.words = await asyncio.to_thread(WordIndex, policy.texts)
            return policy.words

    async def _vectors(self, policy: _Policy) -> Vectors | None:
        if self._make_embedder is None:
            return None
        if self._embedder is None:
            self._embedder = await asyncio.to_thread(self._make_embedder)
        ids = [passage.id for passage in policy.passages]
        kept = dict(await self._policies.vectors(policy.shop_id, self._embedder.name, ids))
        missing = [place for place, passage_id in enumerate(ids) if passage_id not in kept]
        for start in range(0, len(missing), _EMBEDDED_AT_ONCE):
            some = missing[start : start + _EMBEDDED_AT_ONCE]
            made = await self._embedder.embed([policy.texts[place] for place in some])
            new = {ids[place]: np.array(v, dtype=_VECTOR).tobytes() for place, v in zip(some, made, strict=True)}
            await self._policies.keep_vectors(policy.shop_id, self._embedder.name, new)
            kept |= new
        return np.frombuffer(b"".join(kept[i] for i in ids), dtype=_VECTOR).reshape(len(ids), -1)


def _fitting(passages: Sequence[Passage], order: Sequence[int], max_chars: int) -> Sequence[Passage]:
    """The best ones that fit, in the policy's own order."""
    chosen, left = set[int](), max_chars
    for place in order:
        if (size := _size(passages[place])) <= left:
            chosen.add(place)
            left -= size
    return [passages[place] for place in sorted(chosen)]


def _size(passage: Passage) -> int:
    return len(passage.id) + len(passage.heading) + len(passage.text) + _FRAME_CHARS
