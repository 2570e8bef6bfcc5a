"""What every store of policies promises, and what search makes of what is stored."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest

from contracts.ports import PolicySearch
from contracts.shop import version_of
from state.migrate import DIRECTORY, migrate
from state.policies import Loaded, MemoryPolicies, Policies, PostgresPolicies
from state.policy_search import HybridSearch
from state.policy_text import passages_of
from state.shop import PostgresShop
from state.shop_files import load_shop
from tests.contract.samples import EXPORT, OTHER_SHOP, OTHER_TENANT, SHOP, TENANT, shop_of

FIRST = passages_of("# Policy\n\n## Returns\n\nBring it back within a month.\n\n## Gift cards\n\nThey never expire.\n")
SECOND = passages_of("# Policy\n\n## Returns\n\nBring it back within a week.\n\n## Gift cards\n\nThey never expire.\n")
MANY = passages_of(
    "# Policy\n\n"
    + "\n\n".join(f"## Rule {n}\n\nParcels of kind {n} travel {n} days." for n in range(40))
    + "\n\n## Repairs\n\nA broken lamp is mended by our workshop."
    + "\n\n## Wedding lists\n\nGuests may choose from a list."
)


@dataclass
class HashingEmbedder:
    """Texts are alike when they share words; two words that mean the same are one to it."""

    name: str = "hashing"
    dimensions: int = 64
    texts: list[str] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.texts.extend(texts)
        return [self._vector(text.casefold().replace("fixed", "mended")) for text in texts]

    def _vector(self, text: str) -> Sequence[float]:
        vector = [0.0] * self.dimensions
        for word in re.findall(r"[a-z]{4,}", text):
            vector[hashlib.sha256(word.encode()).digest()[0] % self.dimensions] += 1
        length = sum(value * value for value in vector) ** 0.5 or 1.0
        return [value / length for value in vector]


class PoliciesContract:
    async def test_what_is_loaded_is_in_force_as_one_version(self, policies: Policies) -> None:
        assert await policies.in_force(SHOP) is None
        assert await policies.load(SHOP, FIRST) == Loaded(version_of(FIRST), changed=True)
        assert await policies.in_force(SHOP) == version_of(FIRST)
        assert tuple(await policies.passages(SHOP, version_of(FIRST))) == FIRST

    async def test_loading_the_same_again_changes_nothing(self, policies: Policies) -> None:
        await policies.load(SHOP, FIRST)
        before = await policies.versions(SHOP)
        assert await policies.load(SHOP, FIRST) == Loaded(version_of(FIRST), changed=False)
        assert await policies.versions(SHOP) == before

    async def test_a_changed_policy_is_a_new_version_and_the_old_one_stays(self, policies: Policies) -> None:
        await policies.load(SHOP, FIRST)
        assert (await policies.load(SHOP, SECOND)).changed
        assert [(v.version, v.passages, v.in_force) for v in await policies.versions(SHOP)] == [
            (version_of(SECOND), 2, True),
            (version_of(FIRST), 2, False),
        ]
        assert tuple(await policies.passages(SHOP, version_of(FIRST))) == FIRST

    async def test_an_old_policy_comes_into_force_again_under_its_old_version(self, policies: Policies) -> None:
        for passages in (FIRST, SECOND):
            await policies.load(SHOP, passages)
        assert await policies.load(SHOP, FIRST) == Loaded(version_of(FIRST), changed=True)
        assert await policies.in_force(SHOP) == version_of(FIRST)
        assert len(await policies.versions(SHOP)) == 2

    async def test_the_order_of_the_passages_is_part_of_the_version(self, policies: Policies) -> None:
        await policies.load(SHOP, FIRST)
        assert (await policies.load(SHOP, FIRST[::-1])).changed

    async def test_a_version_that_comes_only_later_is_found_then(self, policies: Policies) -> None:
        assert list(await policies.passages(SHOP, version_of(FIRST))) == []
        await policies.load(SHOP, FIRST)
        assert tuple(await policies.passages(SHOP, version_of(FIRST))) == FIRST

    async def test_a_shop_has_its_own_policy_alone(self, policies: Policies) -> None:
        await policies.load(SHOP, FIRST)
        assert await policies.in_force(OTHER_SHOP) is None
        assert list(await policies.passages(OTHER_SHOP, version_of(FIRST))) == []
        assert list(await policies.versions(OTHER_SHOP)) == []

    async def test_the_first_vector_of_a_passage_stays_by_shop_and_embedder(self, policies: Policies) -> None:
        for shop in (SHOP, OTHER_SHOP):
            await policies.load(shop, FIRST)
        await policies.keep_vectors(SHOP, "one", {"a": b"1234", "b": b"5678"})
        await policies.keep_vectors(SHOP, "one", {"a": b"4321"})
        assert await policies.vectors(SHOP, "one", ["a", "b", "c"]) == {"a": b"1234", "b": b"5678"}
        assert await policies.vectors(SHOP, "two", ["a"]) == await policies.vectors(OTHER_SHOP, "one", ["a"]) == {}

    # --- search ---------------------------------------------------------------------------------------

    async def test_a_policy_that_fits_is_shown_whole_and_embeds_nothing(self, policies: Policies) -> None:
        await policies.load(SHOP, MANY)
        embedder = HashingEmbedder()
        search: PolicySearch = HybridSearch(policies, shop_of, lambda: embedder)
        assert tuple(await search.search(TENANT, "a broken lamp", max_chars=100_000)) == MANY
        assert embedder.texts == []

    @pytest.mark.parametrize("with_vectors", [True, False])
    async def test_of_a_longer_policy_what_bears_on_the_text_is_shown_in_the_policys_order(
        self, policies: Policies, with_vectors: bool
    ) -> None:
        await policies.load(SHOP, MANY)
        search = HybridSearch(policies, shop_of, HashingEmbedder if with_vectors else None)
        text = "Is there a wedding list? And who mends my broken lamp?"
        found = await search.search(TENANT, text, max_chars=600)
        assert sum(len(p.id) + len(p.heading) + len(p.text) for p in found) <= 600
        assert [p.heading for p in found][-2:] == ["Policy > Repairs", "Policy > Wedding lists"]
        assert list(found) == [p for p in MANY if p in found]

    async def test_vectors_find_what_shares_no_word(self, policies: Policies) -> None:
        await policies.load(SHOP, MANY)
        by_words = HybridSearch(policies, shop_of)
        by_meaning = HybridSearch(policies, shop_of, HashingEmbedder)
        assert (await by_words.ranked(TENANT, "can it be fixed"))[0] == MANY[0]  # nothing found: the policy's order
        assert (await by_meaning.ranked(TENANT, "can it be fixed"))[0].heading == "Policy > Repairs"

    async def test_vectors_are_made_once_and_for_changed_passages_alone(self, policies: Policies) -> None:
        await policies.load(SHOP, FIRST)
        for _ in range(2):
            embedder = HashingEmbedder()
            await HybridSearch(policies, shop_of, lambda made=embedder: made).prepare(TENANT)
        assert embedder.texts == []
        await policies.load(SHOP, SECOND)
        await HybridSearch(policies, shop_of, lambda: embedder).prepare(TENANT)
        assert embedder.texts == ["Policy > Returns\nBring it back within a week."]

    async def test_a_search_sees_the_version_in_force_at_once(self, policies: Policies) -> None:
        search = HybridSearch(policies, shop_of)
        assert list(await search.search(TENANT, "returns", max_chars=1_000)) == []
        for passages in (FIRST, SECOND, FIRST):
            await policies.load(SHOP, passages)
            assert tuple(await search.search(TENANT, "returns", max_chars=1_000)) == passages
        assert list(await search.search(OTHER_TENANT, "returns", max_chars=1_000)) == []

    async def test_searches_at_once_find_the_same_and_prepare_once(self, policies: Policies) -> None:
        await policies.load(SHOP, MANY)
        embedder = HashingEmbedder()
        search = HybridSearch(policies, shop_of, lambda: embedder)
        found = await asyncio.gather(*(search.ranked(TENANT, "a broken lamp") for _ in range(8)))
        assert all(one == found[0] for one in found)
        assert embedder.texts.count("Policy > Repairs\nA broken lamp is mended by our workshop.") == 1


class TestInMemory(PoliciesContract):
    @pytest.fixture
    def policies(self) -> MemoryPolicies:
        return MemoryPolicies()


@pytest.mark.postgres
class TestOnPostgres(PoliciesContract):
    @pytest.fixture
    def policies(self, pool: asyncpg.Pool) -> PostgresPolicies:
        return PostgresPolicies(pool)

    async def test_loaders_at_once_leave_one_whole_policy_in_force(self, policies: PostgresPolicies) -> None:
        several = [passages_of(f"# Policy {n}\n\nOne.\n\nTwo.\n\nThree.\n") for n in range(6)]
        await asyncio.gather(*(policies.load(SHOP, passages) for passages in several for _ in range(2)))
        version = await policies.in_force(SHOP)
        assert version in map(version_of, several)
        for passages in several:
            assert tuple(await policies.passages(SHOP, version_of(passages))) == passages

    async def test_loading_a_shop_puts_its_policy_in_force_as_a_version(
        self, policies: PostgresPolicies, pool: asyncpg.Pool
    ) -> None:
        await policies.load(SHOP, FIRST)
        await load_shop(pool, SHOP, EXPORT)
        assert await policies.in_force(SHOP) == version_of(passages_of(EXPORT.policy_markdown))
        assert tuple(await PostgresShop(pool, shop_of).policy(TENANT)) == passages_of(EXPORT.policy_markdown)
        assert len(await policies.versions(SHOP)) == 2


@pytest.mark.postgres
async def test_a_policy_loaded_before_versions_is_the_version_that_loading_it_again_gives(
    postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = tmp_path_factory.mktemp("migrations")
    for path in sorted(DIRECTORY.glob("*.sql")):
        if path.name < "0009":
            (before / path.name).write_text(path.read_text())
    await migrate(postgres_dsn, before)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("INSERT INTO shops (shop_id) VALUES ($1)", SHOP)
    rows = [(SHOP, place, passage.model_dump_json()) for place, passage in enumerate(MANY)]
    await connection.copy_records_to_table("shop_passages", records=rows, columns=("shop_id", "position", "document"))
    await connection.close()
    await migrate(postgres_dsn)
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=2) as pool:
        policies = PostgresPolicies(pool)
        assert await policies.load(SHOP, MANY) == Loaded(version_of(MANY), changed=False)
        assert tuple(await PostgresShop(pool, shop_of).policy(TENANT)) == MANY
        await policies.load(SHOP, FIRST)
        of_the_version_before = "SELECT document->>'id' FROM shop_passages WHERE shop_id = $1 ORDER BY position"
        assert [row[0] for row in await pool.fetch(of_the_version_before, SHOP)] == [p.id for p in FIRST]
