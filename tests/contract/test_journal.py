"""What every journal promises."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contracts.models import CallContext
from state.journal import MemoryJournal, PostgresJournal
from tests.contract.backends import migrated_pool

Journal = MemoryJournal | PostgresJournal
RESULT = b'{"value": "\xc3\xbc"}\x00\xff'


def call(event_id: str = "e1", step: str = "classify") -> CallContext:
    return CallContext(ticket_id="t1", tenant_id="north", event_id=event_id, agent="triage", step=step)


class JournalContract:
    async def test_what_was_kept_is_recalled_byte_for_byte(self, journal: Journal) -> None:
        await journal.keep(call(), "digest", RESULT)
        assert await journal.recall("e1", "classify", "digest") == RESULT

    async def test_another_event_step_or_request_is_another_key(self, journal: Journal) -> None:
        await journal.keep(call(), "digest", RESULT)
        assert await journal.recall("e2", "classify", "digest") is None
        assert await journal.recall("e1", "decide", "digest") is None
        assert await journal.recall("e1", "classify", "other") is None

    async def test_the_first_result_kept_stays(self, journal: Journal) -> None:
        await journal.keep(call(), "digest", b"first")
        await journal.keep(call(), "digest", b"second")
        assert await journal.recall("e1", "classify", "digest") == b"first"

    async def test_of_twenty_kept_at_once_all_recall_the_same(self, journal: Journal) -> None:
        async def keep_and_recall(n: int) -> bytes | None:
            await journal.keep(call(), "digest", str(n).encode())
            return await journal.recall("e1", "classify", "digest")

        assert len(set(await asyncio.gather(*(keep_and_recall(n) for n in range(20))))) == 1


class TestInMemory(JournalContract):
    @pytest.fixture
    def journal(self) -> MemoryJournal:
        return MemoryJournal()


@pytest.mark.postgres
class TestOnPostgres(JournalContract):
    @pytest.fixture
    async def journal(self, postgres_dsn: str) -> AsyncIterator[PostgresJournal]:
        async with migrated_pool(postgres_dsn) as pool:
            yield PostgresJournal(pool)
