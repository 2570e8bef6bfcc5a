"""What every outbox promises about rows that nobody published yet; and how they come through a change of the schema."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from contracts.ports import Outbox, Position, Published, Stored, StoredRecord, TicketStore, worker_lease
from state.outbox import headers_from_bytes, headers_in_bytes
from tests.contract.backends import Backend, in_memory, on_postgres, until_one_waits
from tests.contract.samples import OTHER_OWNER, OWNER, loaded, must_settle, new_ticket, record, settlement

THIRD = "worker-3"
USAGE = "support.usage.v1"


def ids(rows: Sequence[StoredRecord]) -> list[str]:
    return [row.record.event_id for row in rows]


def published(*rows: StoredRecord) -> list[Published]:
    return [Published(row.outbox_id, Position(row.record.topic, 2, row.outbox_id)) for row in rows]


class OutboxContract:
    @pytest.fixture
    def tickets(self, backend: Backend) -> TicketStore:
        return backend.stores.tickets

    @pytest.fixture
    def outbox(self, backend: Backend) -> Outbox:
        return backend.stores.outbox

    async def emit(
        self, tickets: TicketStore, owner: str, *event_ids: str, ticket_id: str = "t1", topic: str = USAGE
    ) -> Stored:
        """Settle an event of the first one's name that emits these."""
        ticket = await tickets.load(ticket_id) or new_ticket(ticket_id)
        records = [record(event_id, ticket_id, topic=topic) for event_id in event_ids]
        return await must_settle(tickets, settlement(ticket, f"for {event_ids[0]}", outgoing=records), owner)

    async def test_rows_of_a_living_worker_stay_its_own(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, OTHER_OWNER)
        await self.emit(tickets, OWNER, "o1")
        await backend.let_pass(59)
        assert await outbox.take_over(OTHER_OWNER, limit=10) == []

    async def test_rows_of_a_dead_worker_are_taken_over_once_oldest_first_as_they_were_stored(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, lease_s=15)
        rows = [row for n in range(4) for row in (await self.emit(tickets, OWNER, f"o{n}", ticket_id=f"t{n}")).records]
        await backend.let_pass(16)
        await backend.live(OTHER_OWNER, THIRD)
        assert list(await outbox.take_over(OTHER_OWNER, limit=3)) == rows[:3]
        assert list(await outbox.take_over(THIRD, limit=3)) == rows[3:]
        assert await outbox.take_over(OTHER_OWNER, limit=3) == []

    async def test_a_worker_that_gave_its_lease_back_left_its_rows_to_anybody(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, OTHER_OWNER)
        await self.emit(tickets, OWNER, "o1")
        await backend.stores.leases.release(worker_lease(OWNER), OWNER)
        assert ids(await outbox.take_over(OTHER_OWNER, limit=10)) == ["o1"]

    async def test_a_worker_that_never_had_a_lease_may_be_just_starting(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OTHER_OWNER)
        await self.emit(tickets, OWNER, "o1")
        await backend.let_pass(9)
        assert await outbox.take_over(OTHER_OWNER, limit=10) == []
        await backend.let_pass(2)
        assert ids(await outbox.take_over(OTHER_OWNER, limit=10)) == ["o1"]

    async def test_who_has_no_lease_takes_nothing_over(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, OTHER_OWNER, lease_s=15)
        await self.emit(tickets, OWNER, "o1")
        await backend.let_pass(16)
        assert await outbox.take_over(OTHER_OWNER, limit=10) == []
        assert await outbox.take_over(THIRD, limit=10) == []
        await backend.live(THIRD)
        assert ids(await outbox.take_over(THIRD, limit=10)) == ["o1"]

    async def test_a_stale_owner_gets_nothing_after_others_took_its_rows_over(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, lease_s=15)
        frozen = settlement(new_ticket(), "e1", outgoing=[record("o1")])
        await must_settle(tickets, frozen, OWNER)
        await backend.let_pass(16)
        await backend.live(OTHER_OWNER)
        assert ids(await outbox.take_over(OTHER_OWNER, limit=10)) == ["o1"]
        assert await tickets.settle([frozen], OWNER) == [None]
        assert (
            await must_settle(tickets, settlement(await loaded(tickets), "e2", outgoing=[record("o2")]))
        ).records == ()

    async def test_a_published_row_is_in_nobodys_way(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, OTHER_OWNER)
        first = await self.emit(tickets, OWNER, "o1", "o2", "o3")
        await outbox.mark_published(published(first.records[0], first.records[2]))
        assert (await self.emit(tickets, OTHER_OWNER, "o4")).records == ()
        await outbox.mark_published(published(first.records[1]))
        assert ids(await outbox.take_over(OTHER_OWNER, limit=10)) == ["o4"]
        await backend.let_pass(61)
        await backend.live(THIRD)
        assert ids(await outbox.take_over(THIRD, limit=10)) == ["o4"]

    # --- order

    async def test_nothing_is_handed_out_while_an_earlier_record_is_in_living_hands(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, OTHER_OWNER, THIRD)
        first = await self.emit(tickets, OWNER, "o1")
        await self.emit(tickets, OTHER_OWNER, "o2")  # stored behind it: nobody's
        await self.emit(tickets, OTHER_OWNER, "p1", topic="support.outcomes.v1")  # another topic of the ticket
        await self.emit(tickets, OTHER_OWNER, "q1", ticket_id="t2")
        assert await outbox.take_over(THIRD, limit=10) == []
        await outbox.mark_published(published(*first.records))
        assert ids(await outbox.take_over(THIRD, limit=10)) == ["o2"]

    async def test_what_was_taken_over_is_in_living_hands_again(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, lease_s=15)
        await self.emit(tickets, OWNER, "o1", "o2", "o3")
        await backend.let_pass(16)
        await backend.live(OTHER_OWNER, THIRD)
        assert ids(await outbox.take_over(OTHER_OWNER, limit=1)) == ["o1"]
        assert await outbox.take_over(THIRD, limit=10) == []
        assert ids(await outbox.take_over(OTHER_OWNER, limit=10)) == ["o2", "o3"]

    async def test_what_comes_before_anothers_row_is_free_and_what_comes_after_it_is_not(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, OTHER_OWNER, lease_s=15)
        await self.emit(tickets, OWNER, "o1", "o2")
        await self.emit(tickets, OTHER_OWNER, "p1", ticket_id="t2")
        await backend.let_pass(10)
        await backend.live(OTHER_OWNER)
        await backend.let_pass(10)
        await self.emit(tickets, OTHER_OWNER, "p2", ticket_id="t2")
        await backend.live(THIRD)
        assert ids(await outbox.take_over(THIRD, limit=10)) == ["o1", "o2"]

    async def test_parallel_take_overs_never_share_a_row_or_split_a_ticket(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        await backend.live(OWNER, lease_s=15)
        for i in range(6):
            for n in range(5):
                await self.emit(tickets, OWNER, f"{n}/{i}", ticket_id=f"t{n}")
        await backend.let_pass(16)
        takers = [f"taker-{n}" for n in range(10)]
        await backend.live(*takers)
        taken = await asyncio.gather(*(outbox.take_over(taker, limit=4) for taker in takers))
        assert sorted(event_id for rows in taken for event_id in ids(rows)) != []
        assert len({row.outbox_id for rows in taken for row in rows}) == sum(map(len, taken))
        for n in range(5):
            mine = [[one for one in ids(rows) if one.startswith(f"{n}/")] for rows in taken]
            assert [rows for rows in mine if rows] in ([], [[f"{n}/{i}" for i in range(len(max(mine, key=len)))]])

    # --- marks

    async def test_the_first_note_of_a_publication_stays(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore
    ) -> None:
        rows = (await self.emit(tickets, OWNER, "o1", "o2")).records
        places = [Position(USAGE, 1, offset) for offset in (7, 8, 9)]
        await outbox.mark_published([Published(rows[0].outbox_id, places[0]), Published(rows[0].outbox_id, places[1])])
        await outbox.mark_published([Published(row.outbox_id, places[2]) for row in rows])
        told = await backend.timeline("t1")
        assert [entry.detail["offset"] for entry in told if entry.what == "emitted"] == [7, 9]

    async def test_a_mark_on_a_row_that_is_not_there_is_nothing(self, outbox: Outbox) -> None:
        await outbox.mark_published([Published(41, Position(USAGE, 0, 0))])
        await outbox.mark_published([])

    async def test_thousands_are_marked_at_once(self, backend: Backend, outbox: Outbox, tickets: TicketStore) -> None:
        await backend.live(OWNER)
        names = [f"t{n}" for n in range(1500)]
        batch = [settlement(new_ticket(name), name, outgoing=[record(f"o/{name}", name)]) for name in names]
        results = await tickets.settle(batch, OWNER)
        rows = [row for result in results if isinstance(result, Stored) for row in result.records]
        await outbox.mark_published(published(*rows))
        await backend.let_pass(100)
        await backend.live(OTHER_OWNER)
        assert await outbox.take_over(OTHER_OWNER, limit=10) == []


class TestInMemory(OutboxContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return in_memory()


@pytest.mark.postgres
class TestOnPostgres(OutboxContract):
    @pytest.fixture
    def backend(self, pool: asyncpg.Pool) -> Backend:
        return on_postgres(pool)

    async def test_a_row_that_is_being_marked_is_waited_for_and_not_taken_over(
        self, backend: Backend, outbox: Outbox, tickets: TicketStore, postgres_dsn: str
    ) -> None:
        await backend.live(OWNER, lease_s=15)
        await self.emit(tickets, OWNER, "o1", "o2")
        await backend.let_pass(16)
        await backend.live(OTHER_OWNER)
        rival = await asyncpg.connect(postgres_dsn)
        async with rival.transaction():
            await rival.execute("DELETE FROM outbox WHERE event_id = 'o1'")
            waiting = asyncio.create_task(outbox.take_over(OTHER_OWNER, limit=10))
            await until_one_waits(rival)
        await rival.close()
        assert ids(await waiting) == ["o2"]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("ce_id", b"1"),),
        (("", b""), ("odd", b"\x00\xff"), ("odd", b""), ("größe", "für dich".encode())),
        tuple((f"h{n}", bytes([n]) * n * 100) for n in range(200)),
    ],
)
def test_headers_come_back_as_they_were(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert headers_from_bytes(headers_in_bytes(headers)) == headers
