"""What every ticket store promises; and what PostgreSQL must do when two meet at the same row."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest

from contracts.errors import ContractBroken, StoreUnavailable, TenantMismatch, VersionConflict
from contracts.ports import EffectsPort, Position, Published, StoredRecord
from state.effects import MemoryEffects, PostgresEffects
from state.memory_tickets import MemoryTickets
from state.postgres_tickets import PostgresTickets
from state.shop import MemoryShop
from state.shop_files import load_shop
from tests.contract.backends import migrated_pool, until, until_one_waits
from tests.contract.cable import cable_to
from tests.contract.samples import (
    EXPORT,
    SHOP,
    cancel,
    loaded,
    new_ticket,
    record,
    reply,
    settlement,
    shop_of,
    stored,
)

Store = MemoryTickets | PostgresTickets
RACES = ("t1", "t2", "t3", "t4")


def published(row: StoredRecord, offset: int = 7) -> Published:
    return Published(row.outbox_id, Position(row.record.topic, 2, offset))


async def claim(store: Store, *, older_than_s: float = 0, lease_s: float = 60, limit: int = 100) -> list[str]:
    """Claim, and tell the event ids."""
    rows = await store.claim_unpublished(older_than_s=older_than_s, lease_s=lease_s, limit=limit)
    return [row.record.event_id for row in rows]


async def settle_on_fresh_state(store: Store, event_id: str) -> None:
    """Decide again until it is stored, as the engine does."""
    while True:
        ticket = await store.load("t1")
        try:
            await store.settle(settlement(ticket or new_ticket(), event_id))
        except VersionConflict:
            continue
        return


class TicketStoreContract:
    async def test_an_unknown_ticket_is_none(self, store: Store) -> None:
        assert await store.load("nobody") is None
        assert not await store.handled("triage", "e1")
        assert await store.timeline("nobody") == []

    async def test_a_settled_ticket_is_loaded_as_it_was_at_the_next_version(self, store: Store) -> None:
        first = settlement(new_ticket(), "e1")
        assert await store.settle(first) == []
        assert await store.load("t1") == first.ticket.model_copy(update={"version": 1})
        second = settlement(await loaded(store), "e2")
        await store.settle(second)
        assert await store.load("t1") == second.ticket.model_copy(update={"version": 2})

    async def test_a_settled_event_is_handled_for_its_group_alone(self, store: Store) -> None:
        await stored(store)
        assert await store.handled("triage", "e1")
        assert not await store.handled("lookup", "e1")
        assert not await store.handled("triage", "e2")

    async def test_a_stale_save_is_refused_and_leaves_no_trace(self, store: Store) -> None:
        stale = await stored(store)
        await store.settle(settlement(stale, "e2"))
        with pytest.raises(VersionConflict):
            await store.settle(settlement(stale, "e3", outgoing=[record("o1")]))
        assert (await loaded(store)).version == 2
        assert not await store.handled("triage", "e3")
        assert await claim(store) == []

    async def test_a_refused_step_decided_again_is_stored(self, store: Store) -> None:
        stale = await stored(store)
        await store.settle(settlement(stale, "e2"))
        with pytest.raises(VersionConflict):
            await store.settle(settlement(stale, "e3"))
        again = settlement(await loaded(store), "e3", outgoing=[record("o1")])
        assert await store.settle(again) is not None
        assert (await loaded(store)).version == 3

    async def test_a_new_ticket_that_is_there_already_is_a_conflict(self, store: Store) -> None:
        await stored(store)
        with pytest.raises(VersionConflict):
            await store.settle(settlement(new_ticket(), "e2"))
        assert not await store.handled("triage", "e2")

    async def test_a_version_of_a_ticket_that_is_not_there_is_a_conflict(self, store: Store) -> None:
        with pytest.raises(VersionConflict):
            await store.settle(settlement(new_ticket().model_copy(update={"version": 1}), "e1"))
        assert not await store.handled("triage", "e1")

    async def test_a_duplicate_returns_none_and_stores_nothing(self, store: Store) -> None:
        ticket = await stored(store)
        assert await store.settle(settlement(ticket, "e1", outgoing=[record("o1")])) is None
        assert await store.load("t1") == ticket
        assert await claim(store) == []

    async def test_a_duplicate_is_told_before_a_conflict(self, store: Store) -> None:
        stale = await stored(store)
        await store.settle(settlement(stale, "e2"))
        assert await store.settle(settlement(stale, "e2")) is None
        assert await store.settle(settlement(new_ticket(), "e1")) is None

    async def test_an_event_id_seen_on_another_ticket_is_a_duplicate(self, store: Store) -> None:
        await stored(store)
        assert await store.settle(settlement(new_ticket("t2"), "e1")) is None
        assert await store.load("t2") is None

    async def test_a_step_that_changes_nothing_keeps_the_version_and_marks_the_event(self, store: Store) -> None:
        ticket = await stored(store)
        rows = await store.settle(settlement(ticket, "e2", step=False, outgoing=[record("o1")]))
        assert rows is not None
        assert [row.record.event_id for row in rows] == ["o1"]
        assert await store.load("t1") == ticket
        assert await store.handled("triage", "e2")

    async def test_a_step_that_changes_nothing_is_stale_too_when_the_ticket_moved_on(self, store: Store) -> None:
        stale = await stored(store)
        await store.settle(settlement(stale, "e2"))
        with pytest.raises(VersionConflict):
            await store.settle(settlement(stale, "e3", step=False))
        assert not await store.handled("triage", "e3")

    async def test_a_ticket_of_another_tenant_is_refused(self, store: Store) -> None:
        ticket = await stored(store)
        with pytest.raises(TenantMismatch):
            await store.settle(settlement(ticket.model_copy(update={"tenant_id": "intruder"}), "e2"))
        assert await store.load("t1") == ticket
        assert not await store.handled("triage", "e2")

    @pytest.mark.parametrize("text", ["NUL \x00", "half \ud800"])
    async def test_text_that_no_database_holds_breaks_the_contract(self, store: Store, text: str) -> None:
        ticket = settlement(new_ticket(), "e1").ticket
        broken = ticket.with_round(ticket.rounds[0].model_copy(update={"reply": text}))
        with pytest.raises(ContractBroken):
            await store.settle(settlement(broken, "e1"))
        assert not await store.handled("triage", "e1")

    async def test_text_that_only_looks_like_an_escape_is_kept(self, store: Store) -> None:
        ticket = settlement(new_ticket(), "e1").ticket
        odd = ticket.with_round(ticket.rounds[0].model_copy(update={"reply": "\\u0000 \\ 'quoted' \U0001f642"}))
        await store.settle(settlement(odd, "e1", step=False))
        assert (await loaded(store)).rounds == odd.rounds

    # --- races

    # Each race is run on several tickets: the first one is slow while connections are made, and shows little.

    @pytest.mark.parametrize("is_new", [True, False])
    async def test_of_twenty_settles_of_one_version_one_wins_and_the_others_leave_no_trace(
        self, store: Store, is_new: bool
    ) -> None:
        for ticket_id in RACES:
            ticket = new_ticket(ticket_id) if is_new else await stored(store, ticket_id, f"{ticket_id}/first")
            names = [f"{ticket_id}/{n}" for n in range(20)]
            rivals = [settlement(ticket, name, outgoing=[record(name, ticket_id)]) for name in names]
            results = await asyncio.gather(*map(store.settle, rivals), return_exceptions=True)
            won = [name for name, result in zip(names, results, strict=True) if isinstance(result, list)]
            assert len(won) == 1
            assert sum(isinstance(result, VersionConflict) for result in results) == 19
            assert [name for name in names if await store.handled("triage", name)] == won
            assert await claim(store) == won
            assert (await loaded(store, ticket_id)).version == ticket.version + 1

    @pytest.mark.parametrize("is_new", [True, False])
    async def test_of_twenty_deliveries_of_one_event_one_is_stored(self, store: Store, is_new: bool) -> None:
        for ticket_id in RACES:
            ticket = new_ticket(ticket_id) if is_new else await stored(store, ticket_id, f"{ticket_id}/first")
            again = settlement(ticket, f"{ticket_id}/again", outgoing=[record(ticket_id, ticket_id)])
            results = await asyncio.gather(*(store.settle(again) for _ in range(20)))
            assert sum(result is not None for result in results) == 1
            assert await claim(store) == [ticket_id]

    async def test_one_event_on_twenty_new_tickets_is_stored_once(self, store: Store) -> None:
        results = await asyncio.gather(*(store.settle(settlement(new_ticket(f"n{i}"), "same")) for i in range(20)))
        assert sum(result is not None for result in results) == 1
        assert len([i for i in range(20) if await store.load(f"n{i}") is not None]) == 1

    async def test_twenty_that_decide_again_all_get_through_one_version_each(self, store: Store) -> None:
        names = [f"race-{n}" for n in range(20)]
        await asyncio.gather(*(settle_on_fresh_state(store, name) for name in names))
        ticket = await loaded(store)
        assert ticket.version == 20
        assert sorted(round_.event_id for round_ in ticket.rounds) == sorted(names)
        versions = [entry.detail["version"] for entry in await store.timeline("t1")]
        assert versions == list(range(1, 21))

    # --- the outbox

    async def test_outbox_rows_come_back_in_the_order_given(self, store: Store) -> None:
        given = [record(f"o{n}") for n in range(30)]
        rows = await store.settle(settlement(new_ticket(), "e1", outgoing=given))
        assert rows is not None
        assert [row.record for row in rows] == given
        ids = [row.outbox_id for row in rows]
        assert ids == sorted(set(ids))
        claimed = await store.claim_unpublished(older_than_s=0, lease_s=60, limit=100)
        assert list(claimed) == list(rows)

    async def test_a_claimed_row_is_not_claimed_again_before_its_lease_is_over(self, store: Store) -> None:
        await store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1")]))
        assert await claim(store, lease_s=0.2) == ["o1"]
        assert await claim(store) == []

        async def claimable() -> bool:
            return await claim(store) == ["o1"]

        await until(claimable)

    async def test_a_published_row_is_never_claimed(self, store: Store) -> None:
        rows = await store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1"), record("o2")]))
        assert rows is not None
        await store.mark_published([published(rows[0])])
        assert await claim(store) == ["o2"]

    async def test_fresh_rows_are_left_to_the_worker_that_wrote_them(self, store: Store) -> None:
        await store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1")]))
        assert await claim(store, older_than_s=60) == []

    async def test_claims_take_the_oldest_up_to_the_limit(self, store: Store) -> None:
        for n in range(4):
            await store.settle(settlement(new_ticket(f"t{n}"), f"e{n}", outgoing=[record(f"o{n}", f"t{n}")]))
        assert await claim(store, limit=3) == ["o0", "o1", "o2"]
        assert await claim(store, limit=3) == ["o3"]

    async def test_a_ticket_whose_older_record_is_in_someones_hands_is_passed_over(self, store: Store) -> None:
        await store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1"), record("o2")]))
        await store.settle(settlement(new_ticket("t2"), "e2", outgoing=[record("p1", "t2")]))
        assert await claim(store, limit=1) == ["o1"]
        assert await claim(store) == ["p1"]

    async def test_parallel_claims_never_share_a_row_or_split_a_ticket(self, store: Store) -> None:
        for n in range(5):
            rows = [record(f"{n}/{i}", f"t{n}") for i in range(6)]
            await store.settle(settlement(new_ticket(f"t{n}"), f"e{n}", outgoing=rows))
        claims = await asyncio.gather(*(claim(store, limit=4) for _ in range(10)))
        taken = [event_id for one in claims for event_id in one]
        assert len(taken) == len(set(taken))
        for n in range(5):
            assert sum(any(name.startswith(f"{n}/") for name in one) for one in claims) <= 1

    async def test_the_first_note_of_a_publication_stays(self, store: Store) -> None:
        rows = await store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1")]))
        assert rows is not None
        await store.mark_published([published(rows[0], offset=7)])
        await store.mark_published([published(rows[0], offset=8)])
        emitted = (await store.timeline("t1"))[1]
        assert emitted.detail["offset"] == 7

    # --- the timeline

    async def test_the_timeline_tells_what_was_handled_and_emitted_in_order(self, store: Store) -> None:
        began = datetime.now(UTC)
        rows = await store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1"), record("o2")]))
        assert rows is not None
        await store.mark_published([published(rows[0])])
        await store.settle(settlement(await loaded(store), "e2", group="lookup"))
        await store.settle(settlement(new_ticket("other"), "e3"))
        entries = await store.timeline("t1")
        assert [(entry.what, entry.detail["event_id"]) for entry in entries] == [
            ("handled", "e1"),
            ("emitted", "o1"),
            ("emitted", "o2"),
            ("handled", "e2"),
        ]
        assert entries[0].detail == {
            "event_id": "e1",
            "type": "TicketSubmitted",
            "group": "triage",
            "topic": "support.tickets.v1",
            "partition": 3,
            "offset": 41,
            "version": 1,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        assert entries[1].detail == {
            "event_id": "o1",
            "type": "TicketResolved",
            "group": "triage",
            "caused_by": "e1",
            "topic": "support.outcomes.v1",
            "partition": 2,
            "offset": 7,
            "payload": {"reply": "für dich"},
        }
        assert entries[2].detail["offset"] is None
        assert all(abs((entry.at - began).total_seconds()) < 60 for entry in entries)

    async def test_the_timeline_tells_the_effects(self, store: Store, effects: EffectsPort) -> None:
        await stored(store)
        await effects.apply(cancel("k1"), "ada")
        await effects.send(reply("k2"))
        told = [dict(entry.detail) for entry in await store.timeline("t1") if entry.what == "effect"]
        assert told == [
            {"kind": "cancel_order", "effect_key": "k1", "order_id": "#W1", "amount": 12.35},
            {"kind": "send_reply", "effect_key": "k2", "order_id": None, "amount": 0},
        ]


class TestInMemory(TicketStoreContract):
    @pytest.fixture
    def effects(self) -> MemoryEffects:
        return MemoryEffects(MemoryShop({SHOP: EXPORT}, shop_of))

    @pytest.fixture
    def store(self, effects: MemoryEffects) -> MemoryTickets:
        return MemoryTickets(effects)


@pytest.mark.postgres
class TestOnPostgres(TicketStoreContract):
    @pytest.fixture
    async def pool(self, postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
        async with migrated_pool(postgres_dsn) as pool:
            yield pool

    @pytest.fixture
    def store(self, pool: asyncpg.Pool) -> PostgresTickets:
        return PostgresTickets(pool)

    @pytest.fixture
    async def effects(self, pool: asyncpg.Pool) -> PostgresEffects:
        await load_shop(pool, SHOP, EXPORT)
        return PostgresEffects(pool, shop_of)

    @pytest.fixture
    async def rival(self, postgres_dsn: str) -> AsyncIterator[asyncpg.Connection]:
        """Another session, in a transaction of its own."""
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute("BEGIN")
        yield connection
        await connection.close()

    async def test_who_waited_for_the_winner_is_stale(self, store: PostgresTickets, rival: asyncpg.Connection) -> None:
        ticket = await stored(store)
        await rival.execute("UPDATE tickets SET version = 2, state = state || '{\"question\": null}'")
        waiting = asyncio.create_task(store.settle(settlement(ticket, "e2", outgoing=[record("o1")])))
        await until_one_waits(rival)
        await rival.execute("COMMIT")
        with pytest.raises(VersionConflict):
            await waiting
        assert not await store.handled("triage", "e2")
        assert await claim(store) == []

    async def test_who_waited_for_one_that_gave_up_is_stored(
        self, store: PostgresTickets, rival: asyncpg.Connection
    ) -> None:
        ticket = await stored(store)
        await rival.execute("UPDATE tickets SET version = 2")
        waiting = asyncio.create_task(store.settle(settlement(ticket, "e2")))
        await until_one_waits(rival)
        await rival.execute("ROLLBACK")
        assert await waiting == []
        assert (await loaded(store)).version == 2

    async def test_who_waited_for_a_rival_creation_leaves_no_trace(
        self, store: PostgresTickets, rival: asyncpg.Connection
    ) -> None:
        await rival.execute(
            "INSERT INTO tickets (ticket_id, tenant_id, version, status, round, state) "
            "VALUES ('t1', 'north', 1, 'new', 0, '{\"ticket_id\": \"t1\", \"tenant_id\": \"north\"}')"
        )
        waiting = asyncio.create_task(store.settle(settlement(new_ticket(), "e1", outgoing=[record("o1")])))
        await until_one_waits(rival)
        await rival.execute("COMMIT")
        with pytest.raises(VersionConflict):
            await waiting
        assert not await store.handled("triage", "e1")
        assert await claim(store) == []

    async def test_who_waited_for_the_same_event_is_a_duplicate(
        self, store: PostgresTickets, rival: asyncpg.Connection
    ) -> None:
        ticket = await stored(store)
        await rival.execute(
            "INSERT INTO inbox (group_name, event_id, type, ticket_id, topic, partition, kafka_offset, version) "
            "VALUES ('triage', 'e2', 'T', 't1', 'topic', 0, 0, 2)"
        )
        waiting = asyncio.create_task(store.settle(settlement(ticket, "e2", outgoing=[record("o1")])))
        await until_one_waits(rival)
        await rival.execute("COMMIT")
        assert await waiting is None
        assert (await loaded(store)).version == 1
        assert await claim(store) == []

    async def test_settling_is_one_statement(self, postgres_dsn: str) -> None:
        seen: list[str] = []
        async with migrated_pool(postgres_dsn, max_size=1) as pool:
            store = PostgresTickets(pool)
            await stored(store)  # asyncpg looks types up at a connection's first use
            async with pool.acquire() as connection:
                connection.add_query_logger(lambda query: seen.append(query.query))
            await store.settle(settlement(new_ticket("t2"), "e2", outgoing=[record("o1", "t2")]))
        assert [query.split()[0] for query in seen] == ["WITH"]

    async def test_an_answer_lost_on_the_way_is_found_in_the_inbox(self, postgres_dsn: str, store: Store) -> None:
        address = urlsplit(postgres_dsn)
        assert address.hostname is not None
        assert address.port is not None
        async with cable_to(address.hostname, address.port) as cable:
            dsn = postgres_dsn.replace(f":{address.port}/", f":{cable.port}/")
            async with migrated_pool(dsn, max_size=1) as pool:
                far = PostgresTickets(pool)
                ticket = await stored(far)
                cable.answers.clear()
                settling = asyncio.create_task(far.settle(settlement(ticket, "e2", outgoing=[record("o1")])))
                await cable.held.wait()
                cable.cut()
                with pytest.raises(StoreUnavailable):
                    await settling
                cable.answers.set()
                assert await far.settle(settlement(ticket, "e2", outgoing=[record("o1")])) is None
        assert (await loaded(store)).version == 2
        assert await claim(store) == ["o1"]
