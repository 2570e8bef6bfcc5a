import asyncio

import pytest

from bus.delivery import Delivery
from bus.frontier import Assignment
from bus.inflight import InFlight
from bus.lanes import Lanes
from bus.outcome import DONE, DeadLetter, Outcome
from contracts.errors import Misconfigured
from contracts.events import TicketSubmitted
from tests.unit.bus.kit import event, fetched, until


class Crew:
    """Lanes with runners, and what the handler saw."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.assignment = Assignment(0)
        self.offset = 0
        self.running = 0
        self.most = 0
        self.tasks: set[asyncio.Task[object] | None] = set()
        self.outcomes: list[Outcome] = []
        self.release = asyncio.Event()
        self.held_up = False

    def offer(self, count: int) -> None:
        for _ in range(count):
            one = fetched(self.assignment, self.offset)
            one.read_as(event(TicketSubmitted(ticket_id=f"t{self.offset}", body="b")))
            self.offset += 1
            self.lanes.offer(one)

    def in_flight(self, handle: object, limit: int, group: asyncio.TaskGroup) -> InFlight:
        return InFlight(
            self.lanes,
            handle,  # type: ignore[arg-type]
            self.finish,
            limit=limit,
            tasks=group,
            held_up=lambda: self.held_up,
        )

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.lanes.done(delivery)

    async def waiting(self, delivery: Delivery) -> Outcome:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.release.wait()
        self.running -= 1
        return DONE

    async def at_once(self, delivery: Delivery) -> Outcome:
        self.tasks.add(asyncio.current_task())
        return DONE


async def test_as_many_handlers_wait_at_once_as_allowed_and_no_more() -> None:
    crew = Crew()
    crew.offer(50)
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.waiting, 20, group)
        in_flight.wake()
        await until(lambda: crew.running == 20)
        in_flight.wake()
        await asyncio.sleep(0)
        assert crew.running == 20
        crew.release.set()
        await until(lambda: len(crew.outcomes) == 50)
    assert crew.most == 20


async def test_handlers_that_do_not_wait_cost_no_task_switch() -> None:
    crew = Crew()
    crew.offer(200)
    async with asyncio.TaskGroup() as group:
        crew.in_flight(crew.at_once, 100, group).wake()
        await until(lambda: len(crew.outcomes) == 200)
    assert len(crew.tasks) == 1


async def test_what_comes_later_is_run_too() -> None:
    crew = Crew()
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.at_once, 4, group)
        for _ in range(5):
            crew.offer(3)
            in_flight.wake()
            await until(lambda: not crew.lanes.ready)
    assert len(crew.outcomes) == 15


async def test_nothing_starts_while_it_is_held_up() -> None:
    crew = Crew()
    crew.offer(3)
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.at_once, 4, group)
        crew.held_up = True
        in_flight.wake()
        await asyncio.sleep(0)
        assert not crew.outcomes
        crew.held_up = False
        in_flight.wake()
        await until(lambda: len(crew.outcomes) == 3)


async def test_a_runner_under_way_starts_no_other_while_it_is_held_up() -> None:
    """What waits to be stored or published counts, not only what waits to be handled, or memory has no bound
    (confluentinc/parallel-consumer#834, #836)."""
    crew = Crew()
    crew.offer(3)
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.waiting, 1, group)
        in_flight.wake()
        await until(lambda: crew.running == 1)
        crew.held_up = True
        crew.release.set()
        await until(lambda: len(crew.outcomes) == 1)
        await asyncio.sleep(0)
        assert len(crew.outcomes) == 1
        crew.held_up = False
        in_flight.wake()
        await until(lambda: len(crew.outcomes) == 3)


async def test_more_start_at_once_when_the_limit_is_raised() -> None:
    crew = Crew()
    crew.offer(10)
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.waiting, 2, group)
        in_flight.wake()
        await until(lambda: crew.running == 2)
        in_flight.resize(6)
        await until(lambda: crew.running == 6)
        crew.release.set()
        await until(lambda: len(crew.outcomes) == 10)
    assert crew.most == 6


async def test_when_the_limit_is_lowered_what_runs_ends_and_fewer_follow() -> None:
    crew = Crew()
    crew.offer(12)
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.waiting, 6, group)
        in_flight.wake()
        await until(lambda: crew.running == 6)
        in_flight.resize(2)
        assert crew.running == 6
        crew.release.set()
        crew.release = asyncio.Event()
        await until(lambda: len(crew.outcomes) == 6)
        await until(lambda: crew.running == 2)
        in_flight.wake()
        await asyncio.sleep(0)
        assert crew.running == 2
        crew.release.set()
        await until(lambda: len(crew.outcomes) == 12)


async def test_a_bug_in_a_handler_is_a_dead_letter_and_the_runner_goes_on() -> None:
    crew = Crew()
    crew.offer(2)

    async def buggy(delivery: Delivery) -> Outcome:
        raise ValueError("a bug")

    async with asyncio.TaskGroup() as group:
        crew.in_flight(buggy, 1, group).wake()
        await until(lambda: len(crew.outcomes) == 2)
    assert all(isinstance(outcome, DeadLetter) for outcome in crew.outcomes)


async def test_a_missing_setting_ends_the_worker() -> None:
    crew = Crew()
    crew.offer(1)

    async def misconfigured(delivery: Delivery) -> Outcome:
        raise Misconfigured("no key")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            crew.in_flight(misconfigured, 1, group).wake()
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as errors:
        await work()
    assert errors.group_contains(Misconfigured)


async def test_giving_up_ends_every_handler() -> None:
    crew = Crew()
    crew.offer(10)
    async with asyncio.TaskGroup() as group:
        in_flight = crew.in_flight(crew.waiting, 10, group)
        in_flight.wake()
        await until(lambda: crew.running == 10)
        await in_flight.cancel()
    assert not crew.outcomes
