import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest

from contracts.errors import Misconfigured, StoreUnavailable
from ops.housekeeping import LEASE, Housekeeping, in_background, retention
from ops.settings import PostgresSettings
from state.housekeeping import Pruned, Retention
from state.leases import MemoryLeases
from tests.unit.bus.kit import until


class House:
    """What there is to delete, in parts; a part that is an error is raised."""

    def __init__(self, *parts: Pruned | Exception) -> None:
        self.parts = list(parts)
        self.seen: list[Retention] = []

    async def prune(self, keep: Retention) -> Pruned:
        self.seen.append(keep)
        part = self.parts.pop(0) if self.parts else Pruned()
        if isinstance(part, Exception):
            raise part
        return part


class Clock:
    """The database's clock, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def keeper(house: House, leases: MemoryLeases) -> Housekeeping:
    return Housekeeping(house.prune, leases, Retention(), every_s=3600, look_every_s=0.01, pause_s=0)


def told(caplog: pytest.LogCaptureFixture, *levels: str) -> Sequence[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in levels]


async def test_a_round_goes_on_until_it_is_through_and_no_other_worker_begins_one_before_it_is_due(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    leases = MemoryLeases(clock)
    house = House(Pruned({"inbox": 5}, False), Pruned({"inbox": 2, "journal": 1}, True))
    assert await keeper(house, leases).round()
    assert len(house.seen) == 2
    assert caplog.records[-1].__dict__["deleted"] == {"inbox": 7, "journal": 1}

    another = keeper(house, leases)
    clock.now_s = 3599
    assert not await another.round()
    clock.now_s = 3601
    assert await another.round()


async def test_a_round_ends_when_another_worker_took_the_lease_over() -> None:
    clock = Clock()
    leases = MemoryLeases(clock)

    async def prune(_keep: Retention) -> Pruned:
        clock.now_s += 301  # so long that the lease is over
        assert await leases.hold(LEASE, "another", lease_s=60)
        return Pruned({}, False)

    assert not await Housekeeping(prune, leases, Retention(), pause_s=0).round()


async def test_a_failure_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    house = House(StoreUnavailable("PostgreSQL is away"), Misconfigured("no right to delete"), Pruned())
    async with in_background(keeper(house, MemoryLeases())):
        await until(lambda: len(house.seen) == 3)
    assert told(caplog, "WARNING") == ["housekeeping failed"] * 2
    assert "PostgreSQL is away" in caplog.records[0].__dict__["error"]


async def test_a_bug_in_it_is_logged_and_leaves_the_worker_alone(caplog: pytest.LogCaptureFixture) -> None:
    house = House(ValueError("a bug"))
    async with in_background(keeper(house, MemoryLeases())):
        await until(lambda: bool(told(caplog, "ERROR")))
        await asyncio.sleep(0)
    [record] = caplog.records
    assert record.exc_info is not None
    assert "a bug" in str(record.exc_info[1])


def test_the_settings_say_how_long_rows_are_kept() -> None:
    assert retention(PostgresSettings()) == Retention()
    longer = PostgresSettings(keep_inbox=timedelta(days=50), keep_journal=timedelta(days=1))
    assert retention(longer) == Retention(inbox=timedelta(days=50), journal=timedelta(days=1))
    with pytest.raises(Misconfigured, match="SWITCHYARD_POSTGRES__KEEP_INBOX: the inbox must be kept for 37 days"):
        retention(PostgresSettings(keep_inbox=timedelta(days=36)))
