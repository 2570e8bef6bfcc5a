"""What the book of model calls promises: one row and one event a call, its answer in the journal, sums that hold."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import asyncpg
import pytest

from contracts.model_ports import Budget, Entry, Hold, ProviderCall
from contracts.models import CallContext, ModelCall
from contracts.values import Tier
from llm.budgeting import Allowance, budgets_of
from ops.usage import alert_record, usage_record
from state.journal import MemoryJournal, PostgresJournal
from state.model_calls import Alert, MemoryModelCalls, PostgresModelCalls

DAY = date(2026, 3, 1)
RESULT = b'{"value": "\xc3\xbc"}\x00\xff'
CONTEXT = CallContext("t1", "north", "e1", "triage", "classify", agent_version="v1", customer="Ann@Example.com")
HOLD = Hold(Decimal("0.01"), 500, 60)


def call(id_: str = "c1", **more: object) -> ProviderCall:
    context = replace(CONTEXT, **more)
    return ProviderCall(id_, context, Tier.FAST, "openai", "gpt-5.4-mini", DAY, "-key")


def made(cost: str = "0.002", **more: object) -> ModelCall:
    fields = {
        "call_id": "their-id",
        "step": "classify",
        "tier": Tier.FAST,
        "provider": "openai",
        "model": "gpt-5.4-mini-2026",
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": Decimal(cost),
        "latency_s": 0.5,
        "outcome": "ok",
    }
    return ModelCall(**(fields | more))


class BookContract:
    async def test_an_answer_is_in_the_journal_byte_for_byte_once_its_call_is_finished(self, book, journal) -> None:
        await book.finish(call(), made(), Entry("digest", RESULT))
        assert await journal.recall("e1", "classify", "digest") == RESULT

    async def test_another_event_step_or_request_is_another_key(self, book, journal) -> None:
        await book.finish(call(), made(), Entry("digest", RESULT))
        assert await journal.recall("e2", "classify", "digest") is None
        assert await journal.recall("e1", "decide", "digest") is None
        assert await journal.recall("e1", "classify", "other") is None

    async def test_the_first_answer_kept_stays(self, book, journal) -> None:
        await book.finish(call("c1"), made(), Entry("digest", b"first"))
        await book.finish(call("c2"), made(), Entry("digest", b"second"))
        assert await journal.recall("e1", "classify", "digest") == b"first"

    async def test_of_twenty_kept_at_once_all_recall_the_same(self, book, journal) -> None:
        async def keep_and_recall(n: int) -> bytes | None:
            await book.finish(call(f"c{n}"), made(), Entry("digest", str(n).encode()))
            return await journal.recall("e1", "classify", "digest")

        assert len(set(await asyncio.gather(*(keep_and_recall(n) for n in range(20))))) == 1

    async def test_a_call_without_an_answer_leaves_nothing_in_the_journal(self, book, journal) -> None:
        await book.finish(call(), made(outcome="unavailable"), None)
        assert await journal.recall("e1", "classify", "digest") is None


class TestInMemory(BookContract):
    @pytest.fixture
    def journal(self) -> MemoryJournal:
        return MemoryJournal()

    @pytest.fixture
    def book(self, journal: MemoryJournal) -> MemoryModelCalls:
        return MemoryModelCalls(journal)


@pytest.mark.postgres
class TestOnPostgres(BookContract):
    @pytest.fixture
    def journal(self, pool: asyncpg.Pool) -> PostgresJournal:
        return PostgresJournal(pool)

    @pytest.fixture
    async def book(self, pool: asyncpg.Pool) -> PostgresModelCalls:
        return PostgresModelCalls(pool, usage_record, alert_record)

    async def test_each_call_has_one_row_and_one_event_however_often_it_is_finished(self, book, pool) -> None:
        await book.open(call(), HOLD)
        for _ in range(2):
            await book.finish(call(), made(), Entry("digest", RESULT))
        await book.finish(call(), made("9"), None)
        (row,) = await pool.fetch("SELECT * FROM model_calls")
        assert (row["cost_usd"], row["outcome"], row["provider_call_id"]) == (Decimal("0.002"), "ok", "their-id")
        assert (row["agent_version"], row["api_key"], row["tier"]) == ("v1", "-key", "fast")
        assert row["finished_at"] is not None
        assert row["customer"] == replace(CONTEXT, customer="ann@example.com").customer_digest
        assert "ann" not in row["customer"].casefold()
        (event,) = await pool.fetch("SELECT * FROM outbox")
        assert (event["topic"], event["type"], event["owner"]) == ("support.usage.v1", "ModelCalled", "")
        told = json.loads(event["value"])
        assert (told["call_id"], told["cost_usd"], told["agent_version"]) == ("their-id", 0.002, "v1")
        assert told["event_id"] == event["caused_by"] == "e1"

    async def test_a_hundred_calls_at_once_are_a_hundred_rows(self, book, pool) -> None:
        await asyncio.gather(*(book.finish(call(f"c{n}"), made(), None) for n in range(100)))
        assert await pool.fetchval("SELECT count(*) FROM model_calls") == 100
        assert await pool.fetchval("SELECT count(*) FROM outbox") == 100

    @pytest.mark.parametrize(
        ("scope", "scope_id", "window"),
        [
            ("ticket", "t1", ""),
            ("customer", CONTEXT.customer_digest, DAY.isoformat()),
            ("tenant", "north", DAY.isoformat()),
            ("agent", "triage", DAY.isoformat()),
            ("day", "all", DAY.isoformat()),
        ],
    )
    async def test_a_budgets_sums_are_what_is_finished_and_what_is_held(self, book, scope, scope_id, window) -> None:
        await book.finish(call("done"), made("0.002"), None)
        await book.open(call("open"), HOLD)
        await book.open(call("lapsed"), HOLD._replace(lease_s=-1))
        await book.open(call("dropped"), HOLD)
        await book.drop("dropped")
        other = {"ticket_id": "t2", "tenant_id": "south", "agent": "reasoning", "customer": "bob@example.com"}
        if scope != "day":
            await book.finish(call("other", **other), made("5"), None)
        await book.finish(replace(call("before"), day=date(2026, 2, 28)), made("7" if window else "0.001"), None)
        sums = await book.sums(Budget(scope, scope_id, window, Decimal(1), None))
        assert (sums.usd, sums.tokens) == ((Decimal("0.002"), 120) if window else (Decimal("0.003"), 240))
        ((held_id, hold),) = sums.held.items()
        assert (held_id, hold.usd, hold.tokens) == ("open", HOLD.usd, HOLD.tokens)
        assert 0 < hold.lease_s <= 60

    async def test_sums_that_are_asked_for_at_once_are_each_their_own(self, book) -> None:
        tickets = [f"t{number}" for number in range(20)]
        await asyncio.gather(
            *(book.finish(call(f"c-{ticket}", ticket_id=ticket), made(f"0.0{ticket[1:]}"), None) for ticket in tickets)
        )
        asked = [*reversed(tickets), "nobody's", *tickets]
        sums = await asyncio.gather(*(book.sums(Budget("ticket", ticket, "", Decimal(1), None)) for ticket in asked))
        assert [one.usd for one in sums] == [
            Decimal(0 if ticket == "nobody's" else f"0.0{ticket[1:]}") for ticket in asked
        ]

    async def test_every_budget_that_a_call_counts_in_finds_it_in_the_book(self, book) -> None:
        """A customer's was held under the address and looked for under its digest: lost with Redis, it was empty."""
        await book.finish(call(), made("0.002"), None)
        scopes = ("ticket", "customer", "tenant", "agent", "day")
        for budget in budgets_of(call(), dict.fromkeys(scopes, Allowance(usd=Decimal(1)))):
            assert (await book.sums(budget)).usd == Decimal("0.002"), budget.scope

    async def test_a_finished_call_cannot_be_dropped(self, book, pool) -> None:
        await book.finish(call(), made(), None)
        await book.drop("c1")
        assert await pool.fetchval("SELECT count(*) FROM model_calls") == 1

    async def test_an_alert_goes_out_once_a_window_and_level(self, book, pool) -> None:
        budget = Budget("tenant", "north", DAY.isoformat(), Decimal(1), None)
        for level in (50, 80, 50, 80):
            await book.tell(Alert(budget, "usd", level, 0.5, call()))
        await book.tell(Alert(budget._replace(window="2026-03-02"), "usd", 50, 0.5, call()))
        events = [json.loads(row["value"]) for row in await pool.fetch("SELECT value FROM outbox ORDER BY id")]
        assert [(e["level"], e["window"]) for e in events] == [
            (50, "2026-03-01"),
            (80, "2026-03-01"),
            (50, "2026-03-02"),
        ]
        assert (events[0]["scope"], events[0]["spent"], events[0]["limit"]) == ("tenant", 0.5, 1.0)

    @pytest.mark.parametrize(
        ("by", "keys"),
        [
            ("ticket", ["t2", "t1"]),
            ("agent", ["reasoning", "triage"]),
            ("tenant", ["south", "north"]),
            ("day", ["2026-03-01"]),
        ],
    )
    async def test_costs_add_up_by_what_is_asked_for_dearest_first(self, book, by, keys) -> None:
        await book.finish(call("c1"), made("0.002"), None)
        await book.finish(call("c2"), made("0.003", estimated=True), None)
        await book.finish(call("c3", ticket_id="t2", tenant_id="south", agent="reasoning"), made("0.5"), None)
        await book.finish(replace(call("early"), day=date(2026, 2, 1)), made("100"), None)
        await book.open(call("open"), HOLD)
        rows = await book.costs(by, DAY, DAY)
        assert [row.key for row in rows] == keys
        assert sum(row.cost_usd for row in rows) == Decimal("0.505")
        assert sum(row.estimated_usd for row in rows) == Decimal("0.003")
        assert sum(row.open_usd for row in rows) == HOLD.usd
        assert sum(row.calls for row in rows) == 3

    async def test_costs_of_one_ticket(self, book) -> None:
        await book.finish(call("c1"), made("0.002"), None)
        await book.finish(call("c2", ticket_id="t2"), made("0.5"), None)
        (row,) = await book.costs("agent", DAY, datetime.now(UTC).date(), ticket_id="t2")
        assert (row.key, row.calls, row.cost_usd) == ("triage", 1, Decimal("0.5"))
