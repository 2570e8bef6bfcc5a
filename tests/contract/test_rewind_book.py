"""What every book of rewinds promises."""

from dataclasses import replace

import asyncpg
import pytest

from contracts.rewinds import NotedRewind, Rewinds
from state.rewinds import MemoryRewinds, PostgresRewinds


class RewindsContract:
    async def test_it_tells_who_moved_which_group_where_and_which_rewinds_were_never_done(self, book: Rewinds) -> None:
        refused = NotedRewind("triage", "support.tickets.v1", "mia", "a bug in 1.2", {0: (10, 0), 3: (7, 5)})
        done = NotedRewind("lookup", "support.lookup.v1", "bo", "", {})
        await book.begin(refused)
        await book.moved((await book.begin(done)).number, {})
        last, first = await book.latest(10)
        assert first.begun_at is not None
        assert replace(first, begun_at=None) == refused
        assert (last.group, last.moves, last.moved_at is not None) == ("lookup", {}, True)
        assert [one.group for one in await book.latest(1)] == ["lookup"]

    async def test_one_that_decides_anew_goes_on_with_those_that_were_interrupted(self, book: Rewinds) -> None:
        anew = NotedRewind("triage", "support.tickets.v1", "mia", "a bug in 1.2", {0: (10, 0)}, again=True)
        first = await book.begin(anew)
        assert first.first == first.number
        await book.begin(replace(anew, group="lookup"))
        plain = await book.begin(replace(anew, again=False))
        assert plain.first == plain.number
        second = await book.begin(replace(anew, by="bo"))
        assert second.first == first.number != second.number
        await book.moved(second.number, {"again": 3, "acted": 1})
        assert (await book.latest(1))[0].rounds == {"again": 3, "acted": 1}
        third = await book.begin(anew)
        assert third.first == third.number


class TestInMemory(RewindsContract):
    @pytest.fixture
    def book(self) -> MemoryRewinds:
        return MemoryRewinds()


@pytest.mark.postgres
class TestOnPostgres(RewindsContract):
    @pytest.fixture
    def book(self, pool: asyncpg.Pool) -> PostgresRewinds:
        return PostgresRewinds(pool)
