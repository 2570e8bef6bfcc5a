"""What a ticket's past tells of failures: each one stays, also when the ticket has long gone on."""

import asyncpg
import pytest

from contracts.ports import Record
from state.chronicle import DEAD_LETTER, PARKED, PostgresChronicle
from state.postgres_parking import PostgresParking

pytestmark = pytest.mark.postgres


def record(offset: int) -> Record:
    return Record("support.tickets.v1", 3, offset, 1_000, b"t1", b"{}")


async def test_every_parking_and_every_dead_letter_is_told_after_the_ticket_went_on(pool: asyncpg.Pool) -> None:
    parking, chronicle = PostgresParking(pool), PostgresChronicle(pool)
    for attempts in (1, 2):
        await parking.park("triage", "t1", record(7), wait_s=60, attempts=attempts, error="ModelOverloaded: 529")
    await parking.block("triage", "t1", record(7), attempts=3, error="ModelRefused: 400")
    await parking.queue("triage", [("t1", record(8))])
    await parking.park("triage", "t2", record(9), wait_s=60, attempts=1, error="another ticket's")
    [waits] = await chronicle.waits("t1")
    assert (waits.group, waits.offset, waits.due_at, waits.behind) == ("triage", 7, None, 1)

    parked_id = await pool.fetchval("SELECT parked_id FROM parked_tickets WHERE ticket_id = 't1'")
    await pool.execute("UPDATE parked_tickets SET due_at = now() WHERE ticket_id = 't1'")
    following = await parking.release("triage", "t1", parked_id)
    assert following is not None
    await parking.release("triage", "t1", following.parked_id)
    told = [(one.what, one.detail["attempts"], one.detail["error"]) for one in await chronicle.entries("t1")]
    assert told == [
        (PARKED, 1, "ModelOverloaded: 529"),
        (PARKED, 2, "ModelOverloaded: 529"),
        (DEAD_LETTER, 3, "ModelRefused: 400"),
    ]
    assert [one.detail["until"] is None for one in await chronicle.entries("t1")] == [False, False, True]
    assert await chronicle.waits("t1") == []


async def test_a_record_that_queues_up_behind_another_has_not_failed(pool: asyncpg.Pool) -> None:
    parking = PostgresParking(pool)
    await parking.park("triage", "t1", record(7), wait_s=60, attempts=1, error="ModelOverloaded: 529")
    await parking.park("triage", "t1", record(8), wait_s=60, attempts=1, error="behind it")
    assert len(await PostgresChronicle(pool).entries("t1")) == 1
