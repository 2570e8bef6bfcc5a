"""What every ticket store promises; and what PostgreSQL must do when two meet at the same row."""

import asyncio
import itertools
import random
import string
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest

from contracts.errors import ContractBroken, StoreUnavailable, TenantMismatch, VersionConflict
from contracts.ports import EffectsPort, Known, Position, Published, Record, Settled, Stored, StoredRecord, Wanted
from contracts.ticket import Desk, Ticket
from state.effects import MemoryEffects, PostgresEffects
from state.memory_tickets import MemoryTickets
from state.postgres_tickets import PostgresTickets
from state.shop import MemoryShop
from state.shop_files import load_shop
from tests.contract.backends import Backend, in_memory, migrated_pool, on_postgres, until_one_waits
from tests.contract.cable import cable_to
from tests.contract.samples import (
    EXPORT,
    OTHER_OWNER,
    OWNER,
    SHOP,
    cancel,
    handled,
    loaded,
    must_settle,
    new_ticket,
    record,
    reply,
    settled,
    settlement,
    shop_of,
    stored,
)

Store = MemoryTickets | PostgresTickets
RACES = ("t1", "t2", "t3", "t4")
USAGE = "support.usage.v1"


def published(row: StoredRecord, offset: int = 7) -> Published:
    return Published(row.outbox_id, Position(row.record.topic, 2, offset))


def event_ids(result: Settled) -> list[str]:
    """Of the rows that are the caller's to publish."""
    assert isinstance(result, Stored), result
    return [row.record.event_id for row in result.records]


async def emitted(store: Store, ticket_id: str = "t1") -> list[str]:
    """The ids of what was stored to be published, whether it is or not."""
    told = await store.timeline(ticket_id)
    return [entry.detail["event_id"] for entry in told if entry.what == "emitted"]


async def settle_on_fresh_state(store: Store, event_id: str) -> None:
    """Decide again until it is stored, as the engine does."""
    while isinstance(await settled(store, settlement(await store.load("t1") or new_ticket(), event_id)), Exception):
        pass


def overdue_since(event_id: str, seconds: float, ticket_id: str) -> Ticket:
    """A ticket with one open round."""
    opened = settlement(new_ticket(ticket_id), event_id).ticket
    deadline = datetime.now(UTC) - timedelta(seconds=seconds)
    return opened.with_round(opened.rounds[0].model_copy(update={"deadline": deadline}))


class TicketStoreContract:
    @pytest.fixture
    def store(self, backend: Backend) -> Store:
        store = backend.stores.tickets
        assert isinstance(store, Store)
        return store

    async def test_an_unknown_ticket_is_none(self, store: Store) -> None:
        assert await store.load("nobody") is None
        assert await store.timeline("nobody") == []

    async def test_a_settled_ticket_is_loaded_as_it_was_at_the_next_version(self, store: Store) -> None:
        first = settlement(new_ticket(), "e1")
        assert await settled(store, first) == Stored(1)
        assert await store.load("t1") == first.ticket.model_copy(update={"version": 1})
        second = settlement(await loaded(store), "e2")
        assert await settled(store, second) == Stored(2)
        assert await store.load("t1") == second.ticket.model_copy(update={"version": 2})

    async def test_a_settled_event_is_handled_for_its_group_alone(self, store: Store) -> None:
        await stored(store)
        assert await handled(store, "e1", "e2") == {"e1"}
        assert await handled(store, "e1", group="lookup") == set()

    async def test_a_stale_save_is_refused_and_leaves_no_trace(self, store: Store) -> None:
        stale = await stored(store)
        await must_settle(store, settlement(stale, "e2"))
        assert isinstance(await settled(store, settlement(stale, "e3", outgoing=[record("o1")])), VersionConflict)
        assert (await loaded(store)).version == 2
        assert await handled(store, "e3") == set()
        assert await emitted(store) == []

    async def test_a_refused_step_decided_again_is_stored(self, store: Store) -> None:
        stale = await stored(store)
        await must_settle(store, settlement(stale, "e2"))
        assert isinstance(await settled(store, settlement(stale, "e3")), VersionConflict)
        again = await must_settle(store, settlement(await loaded(store), "e3", outgoing=[record("o1")]))
        assert (again.version, event_ids(again)) == (3, ["o1"])

    async def test_a_new_ticket_that_is_there_already_is_a_conflict(self, store: Store) -> None:
        await stored(store)
        assert isinstance(await settled(store, settlement(new_ticket(), "e2")), VersionConflict)
        assert await handled(store, "e2") == set()

    async def test_a_version_of_a_ticket_that_is_not_there_is_a_conflict(self, store: Store) -> None:
        gone = new_ticket().model_copy(update={"version": 1})
        assert isinstance(await settled(store, settlement(gone, "e1")), VersionConflict)
        assert await handled(store, "e1") == set()

    async def test_an_event_id_seen_on_another_ticket_is_a_duplicate(self, store: Store) -> None:
        await stored(store)
        assert await settled(store, settlement(new_ticket("t2"), "e1")) is None
        assert await store.load("t2") is None

    async def test_a_step_that_changes_nothing_keeps_the_version_and_marks_the_event(self, store: Store) -> None:
        ticket = await stored(store)
        result = await must_settle(store, settlement(ticket, "e2", step=False, outgoing=[record("o1")]))
        assert (result.version, event_ids(result)) == (1, ["o1"])
        assert await store.load("t1") == ticket
        assert await handled(store, "e2") == {"e2"}

    async def test_a_step_that_changes_nothing_is_stale_too_when_the_ticket_moved_on(self, store: Store) -> None:
        stale = await stored(store)
        await must_settle(store, settlement(stale, "e2"))
        assert isinstance(await settled(store, settlement(stale, "e3", step=False)), VersionConflict)
        assert await handled(store, "e3") == set()

    async def test_a_ticket_of_another_tenant_is_refused(self, store: Store) -> None:
        ticket = await stored(store)
        intruder = ticket.model_copy(update={"tenant_id": "intruder"})
        assert isinstance(await settled(store, settlement(intruder, "e2")), TenantMismatch)
        assert await store.load("t1") == ticket
        assert await handled(store, "e2") == set()

    @pytest.mark.parametrize("text", ["NUL \x00", "half \ud800"])
    async def test_text_that_no_database_holds_breaks_the_contract(self, store: Store, text: str) -> None:
        ticket = settlement(new_ticket(), "e1").ticket
        broken = ticket.with_round(ticket.rounds[0].model_copy(update={"reply": text}))
        assert isinstance(await settled(store, settlement(broken, "e1", step=False)), ContractBroken)
        assert await handled(store, "e1") == set()

    async def test_text_that_only_looks_like_an_escape_is_kept(self, store: Store) -> None:
        ticket = settlement(new_ticket(), "e1").ticket
        odd = ticket.with_round(ticket.rounds[0].model_copy(update={"reply": "\\u0000 \\ 'quoted' \U0001f642"}))
        await must_settle(store, settlement(odd, "e1", step=False))
        assert (await loaded(store)).rounds == odd.rounds

    # --- many at once

    async def test_nothing_to_settle_is_nothing_settled(self, store: Store) -> None:
        assert list(await store.settle([], OWNER)) == []

    async def test_many_are_settled_at_once_and_answered_in_the_order_given(self, store: Store) -> None:
        old = [await stored(store, f"t{n}", f"first-{n}") for n in range(0, 40, 2)]
        tickets = {ticket.ticket_id: ticket for ticket in old}
        names = [f"t{n}" for n in range(39, -1, -1)]
        given = [
            settlement(
                tickets.get(name, new_ticket(name)),
                f"e/{name}",
                outgoing=[record(f"{name}/{i}", name) for i in range(2)],
            )
            for name in names
        ]
        results = await store.settle(given, OWNER)
        for name, one, result in zip(names, given, results, strict=True):
            assert isinstance(result, Stored)
            assert event_ids(result) == [f"{name}/0", f"{name}/1"]
            assert result.records[0].outbox_id < result.records[1].outbox_id
            assert result.version == (2 if name in tickets else 1)
            assert await store.load(name) == one.ticket.model_copy(update={"version": result.version})

    async def test_what_cannot_be_stored_fails_alone(self, store: Store) -> None:
        await stored(store, "moved", "m1")
        stale = await loaded(store, "moved")
        await must_settle(store, settlement(stale, "m2"))
        done = await stored(store, "done", "d1")
        foreign = (await stored(store, "foreign", "f1")).model_copy(update={"tenant_id": "intruder"})
        half = new_ticket("half").model_copy(update={"tenant_id": "\ud800"})
        given = [
            settlement(new_ticket("a"), "e1", outgoing=[record("o1", "a")]),
            settlement(stale, "e2", outgoing=[record("o2", "moved")]),
            settlement(new_ticket("b"), "e3", outgoing=[record("o3", "b")]),
            settlement(done, "d1", outgoing=[record("o4", "done")]),
            settlement(foreign, "e5", outgoing=[record("o5", "foreign")]),
            settlement(half, "e6", outgoing=[record("o6", "half")], step=False),
            settlement(new_ticket("c"), "e7", outgoing=[record("o7", "c")]),
        ]
        results = await store.settle(given, OWNER)
        assert [type(result) for result in results] == [
            Stored,
            VersionConflict,
            Stored,
            type(None),
            TenantMismatch,
            ContractBroken,
            Stored,
        ]
        assert await handled(store, *(f"e{n}" for n in range(1, 8))) == {"e1", "e3", "e7"}
        assert [await emitted(store, one.ticket.ticket_id) for one in given] == [["o1"], [], ["o3"], [], [], [], ["o7"]]

    async def test_one_event_on_two_tickets_at_once_is_stored_once(self, store: Store) -> None:
        given = [settlement(new_ticket(f"t{n}"), "same", outgoing=[record(f"o{n}", f"t{n}")]) for n in range(3)]
        results = await store.settle(given, OWNER)
        [there] = [n for n in range(3) if await store.load(f"t{n}") is not None]
        assert [result is not None for result in results] == [n == there for n in range(3)]
        assert event_ids(results[there]) == [f"o{there}"]

    async def test_two_settlements_of_one_ticket_are_a_mistake_of_the_caller(self, store: Store) -> None:
        with pytest.raises(ValueError, match="one ticket"):
            await store.settle([settlement(new_ticket(), "e1"), settlement(new_ticket(), "e2")], OWNER)
        assert await handled(store, "e1", "e2") == set()

    async def test_several_groups_settle_the_same_event(self, store: Store) -> None:
        await stored(store)
        assert await settled(store, settlement(await loaded(store), "e1", group="lookup")) == Stored(2)

    # --- settled before

    async def test_a_duplicate_is_none_when_nothing_is_left_to_publish(self, store: Store, backend: Backend) -> None:
        first = settlement(new_ticket(), "e1", outgoing=[record("o1")])
        [row] = (await must_settle(store, first)).records
        await backend.stores.outbox.mark_published([published(row)])
        ticket = await loaded(store)
        assert await settled(store, first) is None
        assert await settled(store, settlement(ticket, "e1", outgoing=[record("o2")])) is None
        assert await store.load("t1") == ticket
        assert await emitted(store) == ["o1"]

    async def test_a_duplicate_is_told_before_a_conflict(self, store: Store) -> None:
        stale = await stored(store)
        await must_settle(store, settlement(stale, "e2"))
        assert await settled(store, settlement(stale, "e2")) is None
        assert await settled(store, settlement(new_ticket(), "e1")) is None

    async def test_settled_again_its_unpublished_rows_are_given_again(self, store: Store, backend: Backend) -> None:
        first = settlement(new_ticket(), "e1", outgoing=[record("o1"), record("o2"), record("u1", topic=USAGE)])
        given = await must_settle(store, first)
        assert await settled(store, first) == given
        await backend.stores.outbox.mark_published([published(given.records[0])])
        assert await settled(store, first) == Stored(1, given.records[1:])
        assert (await loaded(store)).version == 1

    async def test_settled_again_what_was_stored_counts_not_what_was_decided_anew(self, store: Store) -> None:
        first = settlement(new_ticket(), "e1", outgoing=[record("o1")])
        given = await must_settle(store, first)
        other = first.ticket.with_round(first.ticket.rounds[0].model_copy(update={"reply": "otherwise"}))
        again = replace(first, ticket=other, outgoing=(record("o1"), record("o2")))
        # Version 0 is one that nothing can be decided on: the stored ticket is not the one in the caller's hands.
        assert await settled(store, again) == Stored(0, given.records)

    async def test_another_owner_gets_nothing_of_what_was_settled_before(self, store: Store) -> None:
        first = settlement(new_ticket(), "e1", outgoing=[record("o1")])
        await must_settle(store, first)
        assert await settled(store, first, OTHER_OWNER) is None

    # --- rows behind others

    async def test_rows_behind_another_owners_unpublished_ones_are_stored_and_left_out(
        self, store: Store, backend: Backend
    ) -> None:
        first = await must_settle(store, settlement(new_ticket(), "e1", outgoing=[record("o1")]), OTHER_OWNER)
        mixed = [record("o2"), record("u2", topic=USAGE), record("o3")]
        assert event_ids(await settled(store, settlement(await loaded(store), "e2", outgoing=mixed))) == ["u2"]
        # Once it is published, those left out still stand before what comes now, whoever stores it.
        await backend.stores.outbox.mark_published([published(first.records[0])])
        for owner, event_id in ((OWNER, "e3"), (OTHER_OWNER, "e4")):
            late = settlement(await loaded(store), event_id, outgoing=[record(f"o/{event_id}")])
            assert event_ids(await settled(store, late, owner)) == []
        other_ticket = settlement(new_ticket("t2"), "e5", outgoing=[record("p1", "t2")])
        assert event_ids(await settled(store, other_ticket)) == ["p1"]
        assert await emitted(store) == ["o1", "o2", "u2", "o3", "o/e3", "o/e4"]

    async def test_rows_behind_are_no_ones_so_settling_again_does_not_give_them(self, store: Store) -> None:
        await must_settle(store, settlement(new_ticket(), "e1", outgoing=[record("o1")]), OTHER_OWNER)
        second = settlement(await loaded(store), "e2", outgoing=[record("o2"), record("u2", topic=USAGE)])
        given = await must_settle(store, second)
        assert await settled(store, second) == given
        assert event_ids(given) == ["u2"]

    async def test_rows_behind_ones_own_are_ones_own(self, store: Store) -> None:
        await must_settle(store, settlement(new_ticket(), "e1", outgoing=[record("o1")]))
        later = settlement(await loaded(store), "e2", outgoing=[record("o2")])
        assert event_ids(await settled(store, later)) == ["o2"]

    # --- look-ups

    async def test_a_look_up_tells_what_is_handled_stored_and_parked(self, store: Store, backend: Backend) -> None:
        for n in range(3):
            await stored(store, f"t{n}", f"e{n}")
        await must_settle(store, settlement(await loaded(store, "t0"), "e9", group="lookup"))
        waits = Record("support.tickets.v1", 3, 41, 0, b"t2", b"{}")
        await backend.stores.parking.park("triage", "t2", waits, wait_s=9, attempts=1, error="")
        wanted = [Wanted("e0", "t0"), Wanted("e9", "t0"), Wanted("e1", "t1"), Wanted("e5", "t2"), Wanted("e6", "new")]
        tickets = {f"t{n}": await loaded(store, f"t{n}") for n in range(3)}
        assert tickets["t0"].version == 2
        assert await store.look_up("triage", wanted) == Known(frozenset({"e0", "e1"}), tickets, frozenset({"t2"}))
        assert await store.look_up("lookup", wanted) == Known(frozenset({"e9"}), tickets, frozenset())

    async def test_a_look_up_leaves_out_tickets_that_are_not_asked_for(self, store: Store) -> None:
        await stored(store, "t1", "e1")
        await stored(store, "t2", "e2")
        known = await store.look_up("triage", [Wanted("e1", "t1", False), Wanted("e2", "t2")])
        assert known == Known(frozenset({"e1", "e2"}), {"t2": await loaded(store, "t2")})

    async def test_a_look_up_of_nothing_knows_nothing(self, store: Store) -> None:
        assert await store.look_up("triage", []) == Known()

    async def test_thousands_are_looked_up_at_once(self, store: Store) -> None:
        names = [f"t{n}" for n in range(3000)]
        await store.settle([settlement(new_ticket(name), f"e/{name}") for name in names[::2]], OWNER)
        known = await store.look_up("triage", [Wanted(f"e/{name}", name) for name in names])
        assert known.handled == {f"e/{name}" for name in names[::2]}
        assert set(known.tickets) == set(names[::2])

    # --- deadlines

    async def test_tickets_past_their_deadline_are_found_the_longest_overdue_first(self, store: Store) -> None:
        late = {
            name: overdue_since(f"e/{name}", seconds, name)
            for name, seconds in {"a": 30, "b": 90, "c": 60, "just": 2, "soon": -60}.items()
        }
        await store.settle([settlement(ticket, f"e/{name}", step=False) for name, ticket in late.items()], OWNER)
        await stored(store, "never", "n1")
        found = await store.overdue(grace_s=5, limit=10)
        assert found == [late[name].model_copy(update={"version": 1}) for name in ("b", "c", "a")]
        assert [ticket.ticket_id for ticket in await store.overdue(grace_s=5, limit=2)] == ["b", "c"]

    @pytest.mark.parametrize("desk", [Desk.CLOSED, Desk.EFFECTS])
    async def test_a_round_that_is_closed_or_decided_is_not_overdue(self, store: Store, desk: Desk) -> None:
        """A command may have moved money already: its round must not say that nothing was done."""
        await must_settle(store, settlement(overdue_since("e1", 60, "t1"), "e1", step=False))
        ticket = await loaded(store)
        closed = ticket.with_round(ticket.rounds[0].model_copy(update={"desk": desk}))
        await must_settle(store, settlement(closed, "e2", step=False))
        assert await store.overdue(grace_s=5, limit=10) == []

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
            results = await asyncio.gather(*(settled(store, rival) for rival in rivals))
            won = [name for name, result in zip(names, results, strict=True) if isinstance(result, Stored)]
            assert len(won) == 1
            assert sum(isinstance(result, VersionConflict) for result in results) == 19
            assert await handled(store, *names) == set(won)
            assert await emitted(store, ticket_id) == won
            assert (await loaded(store, ticket_id)).version == ticket.version + 1

    @pytest.mark.parametrize("is_new", [True, False])
    async def test_of_twenty_deliveries_of_one_event_one_is_stored(self, store: Store, is_new: bool) -> None:
        for ticket_id in RACES:
            ticket = new_ticket(ticket_id) if is_new else await stored(store, ticket_id, f"{ticket_id}/first")
            again = settlement(ticket, f"{ticket_id}/again", outgoing=[record(ticket_id, ticket_id)])
            owners = [f"worker-{n}" for n in range(20)]
            results = await asyncio.gather(*(settled(store, again, owner) for owner in owners))
            assert sum(result is not None for result in results) == 1
            assert await emitted(store, ticket_id) == [ticket_id]

    async def test_one_event_on_twenty_new_tickets_is_stored_once(self, store: Store) -> None:
        given = [settlement(new_ticket(f"n{i}"), "same") for i in range(20)]
        results = await asyncio.gather(*(settled(store, one) for one in given))
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

    @pytest.mark.parametrize("is_new", [True, False])
    async def test_batches_that_share_their_tickets_each_get_their_share(self, store: Store, is_new: bool) -> None:
        names = [f"t{n}" for n in range(30)]
        tickets = [new_ticket(name) if is_new else await stored(store, name, f"{name}/first") for name in names]
        batches = [
            [settlement(ticket, f"{b}/{ticket.ticket_id}") for ticket in (tickets if b % 2 else tickets[::-1])]
            for b in range(6)
        ]
        results = await asyncio.gather(*(store.settle(batch, OWNER) for batch in batches))
        won = [
            one.ticket.ticket_id
            for one, result in zip(itertools.chain(*batches), itertools.chain(*results), strict=True)
            if isinstance(result, Stored)
        ]
        assert sorted(won) == sorted(names)
        assert all([(await loaded(store, t.ticket_id)).version == t.version + 1 for t in tickets])

    # --- the outbox

    async def test_outbox_rows_come_back_in_the_order_given(self, store: Store) -> None:
        given = [record(f"o{n}") for n in range(30)]
        rows = (await must_settle(store, settlement(new_ticket(), "e1", outgoing=given))).records
        assert [row.record for row in rows] == given
        ids = [row.outbox_id for row in rows]
        assert ids == sorted(set(ids))

    async def test_later_steps_of_a_ticket_have_higher_outbox_ids(self, store: Store) -> None:
        ids = []
        for n in range(5):
            ticket = await store.load("t1") or new_ticket()
            step = settlement(ticket, f"e{n}", outgoing=[record(f"o{n}"), record(f"u{n}", topic=USAGE)])
            ids += [row.outbox_id for row in (await must_settle(store, step)).records]
        assert ids == sorted(set(ids))

    # --- the timeline

    async def test_the_timeline_tells_what_was_handled_and_emitted_in_order(
        self, store: Store, backend: Backend
    ) -> None:
        began = datetime.now(UTC)
        rows = (await must_settle(store, settlement(new_ticket(), "e1", outgoing=[record("o1"), record("o2")]))).records
        await backend.stores.outbox.mark_published([published(rows[0])])
        await must_settle(store, settlement(await loaded(store), "e2", group="lookup"))
        await must_settle(store, settlement(new_ticket("other"), "e3"))
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
    def backend(self) -> Backend:
        return in_memory()

    @pytest.fixture
    def effects(self, store: MemoryTickets) -> MemoryEffects:
        store.effects = MemoryEffects(MemoryShop({SHOP: EXPORT}, shop_of))
        return store.effects


@pytest.mark.postgres
class TestOnPostgres(TicketStoreContract):
    @pytest.fixture
    def backend(self, pool: asyncpg.Pool) -> Backend:
        return on_postgres(pool)

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
        await rival.execute("UPDATE tickets SET version = 2")
        neighbour = settlement(new_ticket("t2"), "e3")
        waiting = asyncio.create_task(
            store.settle([settlement(ticket, "e2", outgoing=[record("o1")]), neighbour], OWNER)
        )
        await until_one_waits(rival)
        await rival.execute("COMMIT")
        late, free = await waiting
        assert isinstance(late, VersionConflict)
        assert free == Stored(1)
        assert await handled(store, "e2", "e3") == {"e3"}
        assert await emitted(store) == []

    async def test_who_waited_for_one_that_gave_up_is_stored(
        self, store: PostgresTickets, rival: asyncpg.Connection
    ) -> None:
        ticket = await stored(store)
        await rival.execute("UPDATE tickets SET version = 2")
        waiting = asyncio.create_task(settled(store, settlement(ticket, "e2")))
        await until_one_waits(rival)
        await rival.execute("ROLLBACK")
        assert await waiting == Stored(2)

    async def test_who_waited_for_a_rival_creation_leaves_no_trace_and_takes_nobody_along(
        self, store: PostgresTickets, rival: asyncpg.Connection
    ) -> None:
        await rival.execute(
            "INSERT INTO tickets (ticket_id, tenant_id, version, status, round, state) "
            "VALUES ('t2', 'north', 1, 'new', 0, '{\"ticket_id\": \"t2\", \"tenant_id\": \"north\"}')"
        )
        names = [f"t{n}" for n in range(5)]
        given = [settlement(new_ticket(name), f"e/{name}", outgoing=[record(f"o/{name}", name)]) for name in names]
        waiting = asyncio.create_task(store.settle(given, OWNER))
        await until_one_waits(rival)
        await rival.execute("COMMIT")
        results = await waiting
        assert [type(result) for result in results] == [Stored, Stored, VersionConflict, Stored, Stored]
        assert await handled(store, *(f"e/{name}" for name in names)) == {"e/t0", "e/t1", "e/t3", "e/t4"}
        assert [await emitted(store, name) for name in names] == [["o/t0"], ["o/t1"], [], ["o/t3"], ["o/t4"]]

    async def test_who_waited_for_the_same_event_is_a_duplicate(
        self, store: PostgresTickets, rival: asyncpg.Connection
    ) -> None:
        ticket = await stored(store)
        await rival.execute(
            "INSERT INTO inbox (group_name, event_id, type, ticket_id, topic, partition, kafka_offset, version) "
            "VALUES ('triage', 'e2', 'T', 't1', 'topic', 0, 0, 2)"
        )
        waiting = asyncio.create_task(settled(store, settlement(ticket, "e2", outgoing=[record("o1")])))
        await until_one_waits(rival)
        await rival.execute("COMMIT")
        assert await waiting is None
        assert (await loaded(store)).version == 1
        assert await emitted(store) == []

    async def test_what_only_the_server_refuses_fails_alone(self, store: PostgresTickets) -> None:
        too_long = "".join(random.Random(0).choices(string.ascii_letters, k=9000))  # for an index, also compressed
        ids = ["e0", "e1", "nul \x00", "e3", too_long]
        given = [settlement(new_ticket(f"t{n}"), f"e{n}") for n in range(5)]
        given = [replace(one, event=replace(one.event, id=event_id)) for one, event_id in zip(given, ids, strict=True)]
        results = await store.settle(given, OWNER)
        assert [type(result) for result in results] == [Stored, Stored, ContractBroken, Stored, ContractBroken]
        assert await handled(store, "e0", "e1", "e3", too_long) == {"e0", "e1", "e3"}
        assert [await store.load(f"t{n}") is not None for n in range(5)] == [True, True, False, True, False]

    async def test_settling_is_one_statement_the_same_for_one_and_for_many(self, postgres_dsn: str) -> None:
        seen: list[str] = []
        async with migrated_pool(postgres_dsn, max_size=1) as pool:
            store = PostgresTickets(pool)
            await stored(store)  # asyncpg looks types up at a connection's first use
            async with pool.acquire() as connection:
                connection.add_query_logger(lambda query: seen.append(query.query))
            for size in (1, 2, 50):
                names = [f"{size}/{n}" for n in range(size)]
                given = [settlement(new_ticket(name), name, outgoing=[record(f"o/{name}", name)]) for name in names]
                await store.settle(given, OWNER)
                await store.settle(
                    [settlement(await loaded(store, name), f"again/{name}") for name in names[:1]], OWNER
                )
            settling = [query for query in seen if query.startswith("\nWITH loaded")]
            assert (len(settling), len(set(settling))) == (6, 1)
            assert {query.split()[0] for query in seen} == {"WITH", "SELECT"}
            prepared = (
                "SELECT sum(generic_plans + custom_plans), count(*) FROM pg_prepared_statements WHERE statement ~ $1"
            )
            assert tuple(await pool.fetchrow(prepared, "^\nWITH loaded")) == (7, 1)

    async def test_settling_looks_tickets_up_by_their_key_also_while_the_planner_takes_the_tables_for_small(
        self, pool: asyncpg.Pool, store: PostgresTickets
    ) -> None:
        await stored(store)
        await pool.execute("ANALYZE")
        names = [f"t{n}" for n in range(2, 300)]
        await store.settle([settlement(new_ticket(name), f"e/{name}") for name in names], OWNER)
        for name in names[:40]:
            await must_settle(store, settlement(await loaded(store, name), f"f/{name}", outgoing=[record(name, name)]))
        await store.look_up("triage", [Wanted(f"e/{name}", name) for name in names])
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        scans = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('tickets', 'inbox', 'outbox')"
        assert await pool.fetchval(scans) == 0

    async def test_an_answer_lost_on_the_way_is_found_by_settling_again(self, postgres_dsn: str, store: Store) -> None:
        address = urlsplit(postgres_dsn)
        assert address.hostname is not None
        assert address.port is not None
        async with cable_to(address.hostname, address.port) as cable:
            dsn = postgres_dsn.replace(f":{address.port}/", f":{cable.port}/")
            async with migrated_pool(dsn, max_size=1) as pool:
                far = PostgresTickets(pool)
                step = settlement(await stored(far), "e2", outgoing=[record("o1"), record("o2")])
                cable.answers.clear()
                settling = asyncio.create_task(far.settle([step], OWNER))
                await cable.held.wait()
                cable.cut()
                with pytest.raises(StoreUnavailable):
                    await settling
                cable.answers.set()
                again = await must_settle(far, step)
                assert (again.version, event_ids(again)) == (2, ["o1", "o2"])
        assert (await loaded(store)).version == 2
