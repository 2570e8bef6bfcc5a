"""What controls promise, whoever keeps them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from contracts.control import ControlOrder, Course, Mode, Presence
from contracts.events import Drain, Pause, Resume, SetConcurrency
from contracts.ports import Controls, absence_lease
from tests.contract.backends import Backend, in_memory, migrated_pool, on_postgres

GROUP = "triage"


def pause(command_id: str = "c1", *, group: str = GROUP, worker: str | None = None) -> Pause:
    return Pause(command_id=command_id, group=group, worker=worker, by="ada", reason="the shop is closed")


def resume(command_id: str, *, worker: str | None = None) -> Resume:
    return Resume(command_id=command_id, group=GROUP, worker=worker, by="ben")


def lanes(count: int, command_id: str, *, worker: str | None = None) -> SetConcurrency:
    return SetConcurrency(command_id=command_id, group=GROUP, worker=worker, lanes=count, by="ben")


def present(worker: str, *, group: str = GROUP, **otherwise: Any) -> Presence:
    quiet = Presence(worker, group, "v1", "host-1", 41, Mode.RUNNING, lanes=256, running=0, in_hand=0, settled_per_s=0)
    return replace(quiet, **otherwise)


class ControlsContract:
    @pytest.fixture
    def controls(self, backend: Backend) -> Controls:
        return backend.stores.controls

    async def given(self, controls: Controls, *orders: ControlOrder) -> None:
        for order in orders:
            await controls.give(order)

    async def test_without_orders_a_worker_runs_as_its_settings_say(self, controls: Controls) -> None:
        assert await controls.course(GROUP, "w1") == Course(Mode.RUNNING, lanes=None, by="", reason="")

    async def test_an_order_to_a_group_is_for_all_its_workers_and_no_others(self, controls: Controls) -> None:
        await self.given(controls, pause())
        course = Course(Mode.PAUSED, None, "ada", "the shop is closed")
        assert [await controls.course(GROUP, name) for name in ("w1", "w2", "")] == [course] * 3
        assert (await controls.course("lookup", "w1")).mode is Mode.RUNNING

    async def test_an_order_to_one_worker_is_for_that_one(self, controls: Controls) -> None:
        await self.given(controls, Drain(command_id="c1", group=GROUP, worker="w1"))
        assert (await controls.course(GROUP, "w1")).mode is Mode.DRAINED
        assert (await controls.course(GROUP, "w2")).mode is Mode.RUNNING

    async def test_the_last_order_counts_whether_to_one_or_to_all(self, controls: Controls) -> None:
        await self.given(controls, pause("c1"), resume("c2", worker="w1"))
        assert [(await controls.course(GROUP, name)).mode for name in ("w1", "w2")] == [Mode.RUNNING, Mode.PAUSED]
        await self.given(controls, pause("c3", worker="w1"), resume("c4"))
        assert [(await controls.course(GROUP, name)).mode for name in ("w1", "w2")] == [Mode.RUNNING] * 2

    async def test_lanes_and_mode_are_ordered_apart(self, controls: Controls) -> None:
        await self.given(controls, pause("c1"), lanes(8, "c2"), lanes(4, "c3", worker="w1"), resume("c4"))
        assert await controls.course(GROUP, "w1") == Course(Mode.RUNNING, 4, "ben", "")
        assert await controls.course(GROUP, "w2") == Course(Mode.RUNNING, 8, "ben", "")

    async def test_an_order_that_is_kept_again_does_not_come_after_later_ones(self, controls: Controls) -> None:
        """Every worker that hears an order keeps it, however late."""
        await self.given(controls, pause("c1"), resume("c2"), pause("c1"))
        assert (await controls.course(GROUP, "w1")).mode is Mode.RUNNING

    async def test_while_somebody_has_a_group_away_its_workers_are_out_whatever_they_were_ordered(
        self, controls: Controls, backend: Backend
    ) -> None:
        await self.given(controls, pause("c1", worker="w1"), lanes(4, "c2"))
        leases = backend.stores.leases
        await leases.hold(absence_lease(GROUP), "mia", lease_s=30)
        await self.given(controls, resume("c3", worker="w2"))
        away = Course(Mode.DRAINED, 4, "mia", "its group is away")
        assert [await controls.course(GROUP, name) for name in ("w1", "w2", "w3")] == [away] * 3
        assert (await controls.course("lookup", "w1")).mode is Mode.RUNNING
        await backend.let_pass(31)
        after = [(await controls.course(GROUP, name)).mode for name in ("w1", "w2", "w3")]
        assert after == [Mode.PAUSED, Mode.RUNNING, Mode.RUNNING]

    async def test_workers_are_told_by_name_as_they_reported_last(self, controls: Controls) -> None:
        await controls.report(present("w2"))
        await controls.report(present("w1"))
        later = {"version": "v2", "host": "host-2", "process_id": 42, "mode": Mode.PAUSED, "lanes": 8, "running": 3}
        later |= {"in_hand": 80, "settled_per_s": 12.5, "held_up": "paused by ada", "partitions": (0, 3)}
        await controls.report(present("w2", **later))
        await controls.report(present("w3", group="lookup"))
        seen = await controls.workers(GROUP, within_s=10)
        assert [one.presence for one in seen] == [present("w1"), present("w2", **later)]

    async def test_workers_of_two_groups_may_have_one_name(self, controls: Controls) -> None:
        """As static members of Kafka may."""
        for group in (GROUP, "lookup"):
            await controls.report(present("pod-0", group=group))
        await controls.leave("lookup", "pod-0")
        assert [one.presence for one in await controls.workers(GROUP, within_s=10)] == [present("pod-0")]
        assert await controls.workers("lookup", within_s=10) == []

    async def test_one_that_is_silent_or_left_is_not_there(self, controls: Controls, backend: Backend) -> None:
        for name in ("w1", "w2", "w3"):
            await controls.report(present(name))
        await controls.leave(GROUP, "w2")
        await controls.leave(GROUP, "nobody")
        await backend.let_pass(8)
        await controls.report(present("w3"))
        there = await controls.workers(GROUP, within_s=10)
        assert [one.presence.worker for one in there] == ["w1", "w3"]
        assert there[0].silent_s >= 8 > there[1].silent_s
        await backend.let_pass(3)
        assert [one.presence.worker for one in await controls.workers(GROUP, within_s=10)] == ["w3"]


class TestInMemory(ControlsContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return in_memory()


@pytest.mark.postgres
class TestOnPostgres(ControlsContract):
    @pytest.fixture
    async def backend(self, postgres_dsn: str) -> AsyncIterator[Backend]:
        async with migrated_pool(postgres_dsn) as pool:
            yield on_postgres(pool)
