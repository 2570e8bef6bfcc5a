"""What is told of a group's progress, whoever keeps inbox and parking."""

from collections.abc import AsyncIterator

import pytest

from contracts.lag_ports import Asked, Place, ProgressStore, Queued
from contracts.ports import Record
from state.memory_parking import MemoryParking
from state.memory_tickets import MemoryTickets
from state.progress import MemoryProgress, PostgresProgress
from tests.contract.backends import Backend, in_memory, migrated_pool, on_postgres
from tests.contract.samples import must_settle, new_ticket, settlement

GROUP, TOPIC = "triage", "support.tickets.v1"
THEN_MS = 1_700_000_000_000


def record(offset: int, ticket_id: str, *, partition: int = 3, topic: str = TOPIC, timestamp: int = THEN_MS) -> Record:
    return Record(topic, partition, offset, timestamp, ticket_id.encode(), b"{}")


def asked(offset: int, event_id: str | None, ticket_id: str | None = "t1", partition: int = 3) -> Asked:
    return Asked(partition, offset, THEN_MS, event_id, ticket_id)


class ProgressContract:
    async def test_what_the_group_settled_is_handled(self, backend: Backend, progress: ProgressStore) -> None:
        await must_settle(backend.stores.tickets, settlement(new_ticket("t1"), "e1"))
        await must_settle(backend.stores.tickets, settlement(new_ticket("t2"), "e2", group="lookup"))
        told = await progress.progress(GROUP, TOPIC, [asked(1, "e1"), asked(2, "e2"), asked(3, "e3"), asked(4, None)])
        assert told.handled == {"e1"}

    async def test_what_is_parked_is_told_by_its_place(self, backend: Backend, progress: ProgressStore) -> None:
        parking = backend.stores.parking
        await parking.park(GROUP, "t1", record(1, "t1"), wait_s=60, attempts=1, error="")
        await parking.queue(GROUP, [("t1", record(2, "t1"))])
        await parking.block(GROUP, "t2", record(3, "t2"), attempts=1, error="")
        await parking.park("lookup", "t4", record(4, "t4"), wait_s=60, attempts=1, error="")
        wanted = [asked(n, f"e{n}", ticket_id) for n, ticket_id in enumerate(["t1", "t1", "t2", "t4"], start=1)]
        told = await progress.progress(GROUP, TOPIC, wanted)
        assert told.parked == {Place(3, offset, THEN_MS) for offset in (1, 2, 3)}
        assert (await progress.progress(GROUP, TOPIC, wanted[2:])).parked == {Place(3, 3, THEN_MS)}

    async def test_queues_are_counted_by_partition_and_by_what_they_wait_for(
        self, backend: Backend, progress: ProgressStore
    ) -> None:
        parking = backend.stores.parking
        await parking.park(GROUP, "t1", record(9, "t1", timestamp=THEN_MS + 5), wait_s=60, attempts=1, error="")
        await parking.queue(GROUP, [("t1", record(10, "t1")), ("t1", record(11, "t1", timestamp=-1))])
        await parking.block(GROUP, "t2", record(1, "t2", timestamp=5), attempts=1, error="")
        await parking.queue(GROUP, [("t2", record(2, "t2", timestamp=6))])
        await parking.block(GROUP, "t3", record(1, "t3", partition=5), attempts=1, error="")
        await parking.block(GROUP, "t4", record(1, "t4", topic="another"), attempts=1, error="")
        await parking.park("lookup", "t1", record(1, "t1"), wait_s=60, attempts=1, error="")
        told = await progress.progress(GROUP, TOPIC, [])
        assert list(told.queues) == [
            Queued(3, waiting=3, blocked=1, dead_letters=1, oldest_ms=THEN_MS),
            Queued(5, dead_letters=1),
        ]

    async def test_tens_of_thousands_may_be_asked_for(self, backend: Backend, progress: ProgressStore) -> None:
        await must_settle(backend.stores.tickets, settlement(new_ticket("t1"), "e17000"))
        told = await progress.progress(GROUP, TOPIC, [asked(n, f"e{n}", f"t{n}") for n in range(20_000)])
        assert told.handled == {"e17000"}


class TestMemoryProgress(ProgressContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return in_memory()

    @pytest.fixture
    def progress(self, backend: Backend) -> ProgressStore:
        tickets, parking = backend.stores.tickets, backend.stores.parking
        assert isinstance(tickets, MemoryTickets)
        assert isinstance(parking, MemoryParking)
        return MemoryProgress(tickets, parking)


@pytest.mark.postgres
class TestPostgresProgress(ProgressContract):
    @pytest.fixture
    async def backend_and_progress(self, postgres_dsn: str) -> AsyncIterator[tuple[Backend, ProgressStore]]:
        async with migrated_pool(postgres_dsn) as pool:
            yield on_postgres(pool), PostgresProgress(pool)

    @pytest.fixture
    def backend(self, backend_and_progress: tuple[Backend, ProgressStore]) -> Backend:
        return backend_and_progress[0]

    @pytest.fixture
    def progress(self, backend_and_progress: tuple[Backend, ProgressStore]) -> ProgressStore:
        return backend_and_progress[1]
