"""What every book of rewinds promises."""

import asyncpg
import pytest

from contracts.rewinds import NotedRewind, Rewinds
from state.rewinds import MemoryRewinds, PostgresRewinds


class RewindsContract:
    async def test_it_tells_who_moved_which_group_where_and_which_rewinds_were_never_done(self, book: Rewinds) -> None:
        refused = NotedRewind("triage", "support.tickets.v1", "mia", "a bug in 1.2", {0: (10, 0), 3: (7, 5)})
        done = NotedRewind("lookup", "support.lookup.v1", "bo", "", {})
        await book.begin(refused)
        await book.moved(await book.begin(done))
        last, first = await book.latest(10)
        assert first == refused
        assert (last.group, last.moves, last.moved_at is not None) == ("lookup", {}, True)
        assert [one.group for one in await book.latest(1)] == ["lookup"]


class TestInMemory(RewindsContract):
    @pytest.fixture
    def book(self) -> MemoryRewinds:
        return MemoryRewinds()


@pytest.mark.postgres
class TestOnPostgres(RewindsContract):
    @pytest.fixture
    def book(self, pool: asyncpg.Pool) -> PostgresRewinds:
        return PostgresRewinds(pool)
