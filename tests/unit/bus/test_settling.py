import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bus.delivery import Delivery
from bus.settling import Settling
from contracts.errors import Misconfigured, StoreUnavailable
from contracts.events import TicketSubmitted
from contracts.ports import Settled, Settlement, Stored, TicketStore
from contracts.ticket import Ticket
from state.stores import memory_stores
from tests.unit.bus.kit import delivery, event, until


@dataclass
class Slow:
    """A store in front of the memory store: a write takes until `release`, and what it does first is the test's."""

    store: TicketStore = field(default_factory=lambda: memory_stores().tickets)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[int] = field(default_factory=list)
    lost_answers: int = 0
    bugs: int = 0
    bug: Exception = field(default_factory=lambda: LookupError("a bug"))

    async def settle(self, settlements: Sequence[Settlement], owner: str) -> Sequence[Settled]:
        self.batches.append(len(settlements))
        await self.release.wait()
        if self.bugs:
            self.bugs -= 1
            raise self.bug
        results = await self.store.settle(settlements, owner)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("the answer got lost")
        return results


class Writer:
    def __init__(self, store: Slow) -> None:
        self.results: dict[str, Settled | Exception] = {}
        self.failures: list[BaseException] = []
        self.settling = Settling(store, lambda: "me", self.heard, failed=self.failures.append)  # type: ignore[arg-type]

    def heard(self, one: Delivery, settlement: Settlement, result: Settled | Exception, owner: str) -> None:
        self.results[settlement.event.id] = result

    def put(self, count: int, *, start: int = 0) -> None:
        for n in range(start, start + count):
            of = event(TicketSubmitted(ticket_id=f"t{n}", body="b"), event_id=f"e{n}")
            ticket = Ticket(ticket_id=f"t{n}", tenant_id="default").open_round(of)
            one = delivery(of)
            self.settling.put(one, Settlement("g", of, one.position, ticket))


async def test_what_is_decided_at_the_same_moment_is_one_write() -> None:
    store = Slow()
    writer = Writer(store)
    store.release.set()
    writer.put(7)
    await until(lambda: len(writer.results) == 7)
    assert store.batches == [7]
    assert all(isinstance(result, Stored) for result in writer.results.values())


async def test_a_step_that_comes_alone_waits_for_nobody_and_more_gather_while_writers_are_busy() -> None:
    store = Slow()
    writer = Writer(store)
    for n in range(2):
        writer.put(1, start=n)
        await until(lambda n=n: len(store.batches) == n + 1)  # type: ignore[misc]
    writer.put(30, start=2)
    await asyncio.sleep(0)
    assert store.batches == [1, 1]
    assert writer.settling.backlog == 30
    store.release.set()
    await until(lambda: len(writer.results) == 32)
    assert store.batches == [1, 1, 30]


async def test_a_write_whose_answer_is_lost_is_made_again_and_finds_what_was_stored() -> None:
    """The connection was cut after COMMIT was sent."""
    store = Slow(lost_answers=1)
    store.release.set()
    writer = Writer(store)
    writer.put(3)
    await until(lambda: len(writer.results) == 3)
    assert store.batches == [3, 3]
    assert [await store.store.load(f"t{n}") is not None for n in range(3)] == [True] * 3
    assert not any(isinstance(result, Exception) for result in writer.results.values())


async def test_a_bug_in_the_store_hits_one_step_and_not_its_neighbours() -> None:
    store = Slow(bugs=2)
    store.release.set()
    writer = Writer(store)
    writer.put(3)
    await until(lambda: len(writer.results) == 3)
    assert store.batches == [3, 1, 1, 1]
    assert [type(writer.results[f"e{n}"]) for n in range(3)] == [LookupError, Stored, Stored]


async def test_a_schema_that_does_not_fit_ends_the_worker_and_buries_no_step() -> None:
    store = Slow(bugs=1, bug=Misconfigured("the database's schema does not fit"))
    store.release.set()
    writer = Writer(store)
    writer.put(3)
    await until(lambda: bool(writer.failures))
    assert isinstance(writer.failures[0], Misconfigured)
    assert not writer.results


async def test_an_error_in_whoever_hears_of_it_ends_the_worker() -> None:
    store = Slow()
    store.release.set()
    writer = Writer(store)

    def heard(*what: object) -> None:
        raise LookupError("a bug in the engine")

    writer.settling = Settling(store, lambda: "me", heard, failed=writer.failures.append)  # type: ignore[arg-type]
    writer.put(1)
    await until(lambda: bool(writer.failures))
    assert isinstance(writer.failures[0], LookupError)
