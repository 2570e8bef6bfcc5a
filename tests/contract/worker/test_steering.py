"""Workers on a real Kafka do what ops order, and say so."""

import asyncio
import os
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from bus.consumer import Worker
from contracts.control import Mode, Presence
from contracts.errors import Misconfigured, StoreUnavailable, SupportError
from contracts.events import Drain, Event, Pause, Resume, SetConcurrency
from contracts.topics import CONTROL
from ops.service.control import ControlDesk, Given, new_command_id
from state.controls import MemoryControls
from tests.contract.worker.bench import FAST, Answering, Bench, until

pytestmark = pytest.mark.kafka


def named(name: str, **changed: Any) -> Any:
    return replace(FAST, name=name, **changed)


def about(bench: Bench, worker: str | None = None) -> dict[str, Any]:
    return {"command_id": new_command_id(), "group": bench.agent.name, "worker": worker, "by": "ada"}


def desk(bench: Bench) -> ControlDesk:
    return ControlDesk(bench.stores.controls, bench.connection)


async def until_listening(*workers: Worker) -> None:
    """A worker that has just started follows the control topic a moment later."""

    async def listening() -> bool:
        return all(worker.is_listening for worker in workers)

    await until(listening)


def told(given: Given) -> dict[str, bool | None]:
    return {answer.worker: answer.done for answer in given.answers}


async def test_a_pause_is_answered_by_all_within_2_s_and_a_resume_takes_up_what_came_meanwhile(bench: Bench) -> None:
    async with bench.worker(options=named("a")) as a, bench.worker(options=named("b")) as b:
        await until_listening(a, b)
        began = time.monotonic()
        given = await desk(bench).give(Pause(**about(bench)))
        assert time.monotonic() - began < 2
        assert told(given) == {"a": True, "b": True}
        for number in range(20):
            await bench.submit(f"t{number}", "hello")
        assert {a.presence().mode, b.presence().mode} == {Mode.PAUSED}
        assert bench.agent.seen == []
        assert told(await desk(bench).give(Resume(**about(bench)))) == {"a": True, "b": True}
        await until(bench.all_committed)
    assert len(bench.agent.seen) == 20


async def test_what_is_in_flight_at_a_pause_is_finished_and_committed(bench: Bench) -> None:
    release = asyncio.Event()

    async def think(_event: Event) -> None:
        await release.wait()

    bench.agent.meanwhile = think
    async with bench.worker(options=named("a")) as worker:
        await until_listening(worker)
        await bench.submit("t1", "hello")

        async def begun() -> bool:
            return len(bench.agent.seen) == 1

        await until(begun)
        [answer] = (await desk(bench).give(Pause(**about(bench)))).answers
        assert answer.detail == "paused, 256 lanes, 1 in flight"
        release.set()
        await until(bench.all_committed)


async def test_a_pause_holds_for_a_worker_that_starts_later(bench: Bench) -> None:
    given = await desk(bench).give(Pause(**about(bench)))
    assert given.answers == ()
    assert given.is_done
    await bench.submit("t1", "hello")
    async with bench.worker(options=named("a")) as worker:
        await until_listening(worker)
        assert worker.presence().mode is Mode.PAUSED
        assert bench.agent.seen == []
        await desk(bench).give(Resume(**about(bench)))
        await until(bench.all_committed)


async def test_one_that_is_drained_leaves_its_partitions_to_the_other_until_it_is_resumed(bench: Bench) -> None:
    first, second = Answering(bench.agent.name), Answering(bench.agent.name)
    async with bench.worker(first, named("a")) as a, bench.worker(second, named("b")) as b:
        await until_listening(a, b)
        assert told(await desk(bench).give(Drain(**about(bench, "a")))) == {"a": True}

        async def is_out() -> bool:
            return a.presence().mode is Mode.DRAINED

        await until(is_out)
        for number in range(20):
            await bench.submit(f"t{number}", "hello")
        await until(bench.all_committed)
        assert (len(first.seen), len(second.seen)) == (0, 20)
        assert told(await desk(bench).give(Drain(**about(bench, "b")))) == {"b": True}
        assert told(await desk(bench).give(Resume(**about(bench, "a")))) == {"a": True}
        await bench.submit("another", "hello")
        await until(bench.all_committed)
        assert (len(first.seen), len(second.seen)) == (1, 20)


async def test_lanes_are_resized_while_it_runs(bench: Bench) -> None:
    now, most, release = 0, 0, asyncio.Event()

    async def think(_event: Event) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await release.wait()
        now -= 1

    bench.agent.meanwhile = think
    for number in range(30):
        await bench.submit(f"t{number}", "hello")

    async def running(count: int) -> None:
        async def so_many() -> bool:
            return now == count

        await until(so_many)

    async with bench.worker(options=named("a", lanes=2)) as worker:
        await until_listening(worker)
        await running(2)
        [answer] = (await desk(bench).give(SetConcurrency(lanes=9, **about(bench)))).answers
        assert answer.done
        await running(9)
        release.set()
        await until(bench.all_committed)
    assert most == 9


async def test_who_does_not_answer_is_named(bench: Bench) -> None:
    """It was killed, or hangs, and nobody has noticed yet."""
    async with bench.worker(options=named("a")) as worker:
        await until_listening(worker)
        ghost = replace(worker.presence(), worker="ghost", running=7)
        await bench.stores.controls.report(ghost)
        given = await desk(bench).give(Pause(**about(bench)))
        assert told(given) == {"a": True, "ghost": None}
        assert not given.is_done
        assert given.answers[1].detail == "no answer within 2 s; was running with 7 in flight 0 s ago"


async def test_who_cannot_reach_the_database_says_that_it_was_not_done(bench: Bench) -> None:
    class Away(MemoryControls):
        away = False

        async def course(self, group: str, worker: str) -> Any:
            if self.away:
                raise StoreUnavailable("PostgreSQL is away")
            return await MemoryControls.course(self, group, worker)

    controls = Away()
    bench.stores = replace(bench.stores, controls=controls)
    async with bench.worker(options=named("a")) as worker:
        await until_listening(worker)
        controls.away = True
        [answer] = (await desk(bench).give(Pause(**about(bench)))).answers
        assert (answer.done, "PostgreSQL is away" in answer.detail) == (False, True)

        async def paused() -> bool:
            return worker.presence().mode is Mode.PAUSED

        controls.away = False
        await until(paused)  # it was kept, and is heeded once it can be read


async def test_a_worker_that_is_not_there_is_said_to_be_unknown_and_nothing_is_kept(bench: Bench) -> None:
    async with bench.worker(options=named("a")):
        with pytest.raises(SupportError, match="has no worker 'b' that is up; there are: a"):
            await desk(bench).give(Pause(**about(bench, "b")))
    assert (await bench.stores.controls.course(bench.agent.name, "b")).mode is Mode.RUNNING


async def test_a_dry_run_tells_who_would_be_asked_and_changes_nothing(bench: Bench) -> None:
    async with bench.worker(options=named("a")) as worker:
        given = await desk(bench).would_give(Pause(**about(bench)))
        assert told(given) == {"a": None}
        assert worker.presence().mode is Mode.RUNNING
    assert (await bench.stores.controls.course(bench.agent.name, "a")).mode is Mode.RUNNING


async def test_what_is_no_order_is_passed_over(bench: Bench) -> None:
    async with bench.worker(options=named("a")) as worker:
        await until_listening(worker)
        for value, headers in ((b"{", [("ce_type", b"Pause")]), (None, []), (b"{}", [("ce_type", b"\xff")])):
            await bench.publisher.put(CONTROL.name, key=b"x", value=value, headers=headers)
        assert told(await desk(bench).give(Pause(**about(bench)))) == {"a": True}


async def there(bench: Bench) -> list[Presence]:
    """The workers that reported and did not leave, however long ago."""
    return [seen.presence for seen in await bench.stores.controls.workers(bench.agent.name, within_s=600)]


async def test_a_worker_that_ended_is_not_there(bench: Bench) -> None:
    async with bench.worker(options=named("a")):
        assert [presence.worker for presence in await there(bench)] == ["a"]
    assert await there(bench) == []


async def test_a_worker_that_broke_is_not_there(bench: Bench) -> None:
    async def breaks(_event: Event) -> None:
        raise Misconfigured("no model is configured")

    async def nobody_is_there() -> bool:
        return not await there(bench)

    async def works_until_it_breaks() -> None:
        async with bench.worker(options=named("a")):
            assert len(await there(bench)) == 1
            await bench.submit("t1", "hello")
            await until(nobody_is_there)

    bench.agent.meanwhile = breaks
    with pytest.raises(ExceptionGroup):
        await works_until_it_breaks()


async def test_a_worker_tells_again_and_again_what_it_does_through_an_outage_of_the_database(bench: Bench) -> None:
    class Failing(MemoryControls):
        failures = 1

        async def report(self, presence: Presence) -> None:
            if self.failures and presence.running:
                self.failures -= 1
                raise StoreUnavailable("PostgreSQL is away")
            await MemoryControls.report(self, presence)

    release = asyncio.Event()

    async def think(_event: Event) -> None:
        await release.wait()

    bench.agent.meanwhile, controls = think, Failing()
    bench.stores = replace(bench.stores, controls=controls)
    async with bench.worker(options=named("a", lanes=2)):
        for number in range(5):
            await bench.submit(f"t{number}", "hello")

        async def busy() -> bool:
            return [(one.running, one.in_hand) for one in await there(bench)] == [(2, 5)]

        await until(busy)
        assert controls.failures == 0
        [told] = await there(bench)
        assert (told.host, told.process_id, told.lanes) == (socket.gethostname(), os.getpid(), 2)
        assert (told.held_up, told.settled_per_s, bool(told.partitions)) == ("", 0, True)
        release.set()

        async def idle() -> bool:
            return [(one.running, one.in_hand, one.settled_per_s > 0) for one in await there(bench)] == [(0, 0, True)]

        await until(idle)


async def test_who_is_paused_or_drained_says_by_whom_and_why(bench: Bench) -> None:
    async with bench.worker(options=named("a")) as worker:
        await until_listening(worker)
        await desk(bench).give(Pause(**about(bench), reason="a slow database"))
        assert [one.held_up for one in await there(bench)] == ["paused by ada: a slow database"]
        await desk(bench).give(Drain(**about(bench)))
        assert [one.held_up for one in await there(bench)] == ["drained by ada"]
        await desk(bench).give(Resume(**about(bench)))
        assert [one.held_up for one in await there(bench)] == [""]
