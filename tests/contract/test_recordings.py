"""What recordings promise."""

import asyncpg
import pytest

from contracts.model_ports import Nearest
from contracts.models import CallContext
from state.recordings import MemoryRecordings, PostgresRecordings

Recordings = MemoryRecordings | PostgresRecordings


def call(ticket_id: str = "t1", step: str = "classify") -> CallContext:
    return CallContext(ticket_id, "north", "e1", "triage", step)


class RecordingsContract:
    async def test_what_was_kept_is_found_byte_for_byte_and_the_first_stays(self, recordings: Recordings) -> None:
        await recordings.keep("d1", call(), {"content": "\ud800 \x00 é"}, b"first\x00\xff")
        await recordings.keep("d1", call(), {}, b"second")
        assert await recordings.find("d1") == b"first\x00\xff"
        assert await recordings.find("d2") is None

    async def test_the_nearest_is_of_the_same_ticket_else_the_latest_of_the_step(self, recordings: Recordings) -> None:
        assert await recordings.nearest(call()) is None
        await recordings.keep("d1", call("t1"), {"content": "one"}, b"1")
        await recordings.keep("d2", call("t2"), {"content": "two"}, b"2")
        await recordings.keep("d3", call("t1", step="other"), {"content": "three"}, b"3")
        assert await recordings.nearest(call("t1")) == Nearest({"content": "one"}, "t1")
        assert await recordings.nearest(call("t9")) == Nearest({"content": "two"}, "t2")
        assert await recordings.nearest(call(step="unheard of")) is None


class TestInMemory(RecordingsContract):
    @pytest.fixture
    def recordings(self) -> MemoryRecordings:
        return MemoryRecordings()


@pytest.mark.postgres
class TestOnPostgres(RecordingsContract):
    @pytest.fixture
    def recordings(self, pool: asyncpg.Pool) -> PostgresRecordings:
        return PostgresRecordings(pool)
