"""What leases promise, whoever keeps them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contracts.ports import Leases
from tests.contract.backends import Backend, in_memory, migrated_pool, on_postgres


class LeasesContract:
    @pytest.fixture
    def leases(self, backend: Backend) -> Leases:
        return backend.stores.leases

    async def test_one_owner_has_it_at_a_time(self, leases: Leases) -> None:
        assert await leases.hold("sweep", "a", lease_s=60)
        assert not await leases.hold("sweep", "b", lease_s=60)
        assert await leases.hold("sweep", "a", lease_s=60)
        assert await leases.hold("another", "b", lease_s=60)

    async def test_it_ends_by_itself(self, leases: Leases, backend: Backend) -> None:
        await leases.hold("sweep", "a", lease_s=30)
        await backend.let_pass(29)
        assert not await leases.hold("sweep", "b", lease_s=30)
        await backend.let_pass(2)
        assert await leases.hold("sweep", "b", lease_s=30)
        assert not await leases.hold("sweep", "a", lease_s=30)

    async def test_a_renewed_one_lasts_from_then_on(self, leases: Leases, backend: Backend) -> None:
        await leases.hold("sweep", "a", lease_s=30)
        await backend.let_pass(20)
        assert await leases.hold("sweep", "a", lease_s=30)
        await backend.let_pass(20)
        assert not await leases.hold("sweep", "b", lease_s=30)

    async def test_a_shorter_renewal_counts_too(self, leases: Leases, backend: Backend) -> None:
        await leases.hold("sweep", "a", lease_s=60)
        assert await leases.hold("sweep", "a", lease_s=5)
        await backend.let_pass(6)
        assert await leases.hold("sweep", "b", lease_s=60)

    async def test_given_back_it_is_free_at_once(self, leases: Leases) -> None:
        await leases.hold("sweep", "a", lease_s=60)
        await leases.release("sweep", "a")
        assert await leases.hold("sweep", "b", lease_s=60)

    async def test_what_is_not_ones_own_cannot_be_given_back(self, leases: Leases) -> None:
        await leases.release("sweep", "b")
        await leases.hold("sweep", "a", lease_s=60)
        await leases.release("sweep", "b")
        assert not await leases.hold("sweep", "b", lease_s=60)

    async def test_who_has_it_is_told_while_it_lasts(self, leases: Leases, backend: Backend) -> None:
        assert await leases.holder("sweep") is None
        await leases.hold("sweep", "a", lease_s=30)
        assert (await leases.holder("sweep"), await leases.holder("another")) == ("a", None)
        await backend.let_pass(31)
        assert await leases.holder("sweep") is None
        await leases.hold("sweep", "b", lease_s=30)
        await leases.release("sweep", "b")
        assert await leases.holder("sweep") is None

    async def test_of_twenty_who_want_it_at_once_one_has_it(self, leases: Leases) -> None:
        for name in ("first", "second", "third"):
            won = await asyncio.gather(*(leases.hold(name, f"w{n}", lease_s=60) for n in range(20)))
            assert sum(won) == 1


class TestInMemory(LeasesContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return in_memory()


@pytest.mark.postgres
class TestOnPostgres(LeasesContract):
    @pytest.fixture
    async def backend(self, postgres_dsn: str) -> AsyncIterator[Backend]:
        async with migrated_pool(postgres_dsn) as pool:
            yield on_postgres(pool)
