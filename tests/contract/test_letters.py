"""Dead letters on a real Kafka: found in their topic, redriven and discarded while a worker runs."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from bus.letters import read_letters
from contracts.errors import ContractBroken, SupportError
from contracts.events import Event
from contracts.letter_ports import LetterBook
from contracts.letters import Act, Fate, JobStatus, LetterFilter, Standing
from contracts.ports import Stores
from contracts.topics import dead_letter_topic
from ops.letter_text import as_lines, as_text, job_with_letters, listed, shown
from ops.service.exclusion import rewinding_alone
from ops.service.letters import Asked, Found, LetterDesk, Told
from state.letters import PostgresLetterBook
from state.memory_letters import MemoryLetterBook
from state.memory_parking import MemoryParking
from state.stores import memory_stores, postgres_stores
from tests.contract.worker.bench import Bench, until
from tests.contract.worker.conftest import bench

__all__ = ["bench"]
pytestmark = pytest.mark.kafka

SECRET_CARD = "4111 1111 1111 1111"


@dataclass
class Floor:
    """A worker's bench, whose agent cannot be mended but by the test, and the desk of dead letters beside it."""

    bench: Bench
    desk: LetterDesk
    broken: bool = True
    tried: list[str] = field(default_factory=list)

    @property
    def group(self) -> str:
        return self.bench.agent.name

    def wanted(self, **more: object) -> LetterFilter:
        return LetterFilter((self.group,), **more)  # type: ignore[arg-type]

    async def waiting(self, **more: object) -> list[Found]:
        found = await self.desk.found(self.wanted(**more))
        return [one for one in found if one.standing in (Standing.BLOCKS, Standing.OPEN)]

    async def until_waiting(self, count: int) -> list[Found]:
        async def so_many() -> bool:
            return len(await self.waiting()) == count

        await until(so_many)
        return await self.waiting()

    async def do(self, act: Act = Act.REDRIVE, *, force: bool = False, rate: float = 1000, **wanted: object) -> Told:
        job, letters = await self.desk.plan(self.wanted(**wanted), Asked(act, "mia", "mended", rate, force))
        await self.desk.begin(job, letters)
        return await self.desk.work(job.job_id, asyncio.Event())

    async def until_replied(self, ticket_id: str, *replies: str) -> None:
        async def so_many() -> bool:
            return len(await self.bench.replies(ticket_id)) >= len(replies)

        await until(so_many)
        assert await self.bench.replies(ticket_id) == list(replies)

    async def put(self, value: bytes, key: bytes | None = b"k", **headers: bytes) -> None:
        await self.bench.publisher.put(self.bench.topic.name, key=key, value=value, headers=list(headers.items()))

    async def think(self, event: Event) -> None:
        body = event.data.body  # type: ignore[attr-defined]
        self.tried.append(body)
        if self.broken and body.startswith("broken"):
            raise ContractBroken(f"cannot be: order {len(self.tried)}")


def floor_of(bench: Bench, stores: Stores, book: LetterBook) -> Floor:
    bench.stores = stores
    inboxes = {bench.agent.name: bench.topic}
    desk = LetterDesk(book, stores.parking, stores.leases, bench.connection, bench.publisher, inboxes)
    floor = Floor(bench, desk)
    bench.agent.meanwhile = floor.think
    return floor


def fates(told: Told) -> list[Fate]:
    return [letter.fate for letter in told.letters]


class LettersContract:
    async def test_a_blocked_ticket_goes_on_from_its_redriven_letter_and_what_waited_follows_in_order(
        self, floor: Floor
    ) -> None:
        async with floor.bench.worker():
            for body in ("broken", "second", "third"):
                await floor.bench.submit("sick", body)
            await floor.bench.submit("well", "well")
            [one] = await floor.until_waiting(1)
            await until(floor.bench.all_committed)
            [one] = await floor.waiting()
            assert (one.standing, one.behind, one.letter.ticket_id, one.letter.error) == (
                Standing.BLOCKS,
                2,
                "sick",
                "ContractBroken",
            )
            assert await floor.bench.replies("sick") == []
            floor.broken = False
            told = await floor.do()
            assert (fates(told), told.job.status) == ([Fate.FREED], JobStatus.DONE)
            await floor.until_replied("sick", "broken", "second", "third")
        assert await floor.waiting() == []
        [one] = await floor.desk.found(floor.wanted())
        assert one.standing is Standing.REDRIVEN
        document = job_with_letters(await floor.desk.told(told.job.job_id))
        assert (document["by"], document["reason"], document["counts"]) == ("mia", "mended", {"freed": 1})
        assert [letter["now"] for letter in document["letters"]] == ["settled"]

    async def test_a_discarded_letter_lets_those_behind_it_go_on(self, floor: Floor) -> None:
        async with floor.bench.worker():
            for body in ("broken", "second", "third"):
                await floor.bench.submit("sick", body)
            await floor.until_waiting(1)
            await until(floor.bench.all_committed)
            told = await floor.do(Act.DISCARD)
            assert fates(told) == [Fate.DISCARDED]
            await floor.until_replied("sick", "second", "third")
        [one] = await floor.desk.found(floor.wanted())
        assert one.standing is Standing.DISCARDED
        assert floor.tried == ["broken", "second", "third"]

    async def test_two_redrives_at_once_try_each_letter_once(self, floor: Floor) -> None:
        """100 letters, two jobs over all of them, while the worker runs and others write."""
        tickets = [f"t{n}" for n in range(100)]
        async with floor.bench.worker():
            await asyncio.gather(*(floor.bench.submit(ticket_id, f"broken {ticket_id}") for ticket_id in tickets))
            await floor.until_waiting(100)
            assert len(floor.tried) == 100
            floor.broken = False
            plans = [await floor.desk.plan(floor.wanted(), Asked(Act.REDRIVE, by, "", 2000)) for by in ("mia", "bo")]
            for job, letters in plans:
                await floor.desk.begin(job, letters)
            one, other, *_ = await asyncio.gather(
                *(floor.desk.work(job.job_id, asyncio.Event()) for job, _ in plans),
                *(floor.bench.submit(f"new{n}", "fine") for n in range(50)),
            )
            for ticket_id in tickets:
                await floor.until_replied(ticket_id, f"broken {ticket_id}")
            await until(floor.bench.all_committed)
        both = fates(one) + fates(other)
        assert (both.count(Fate.FREED), both.count(Fate.ELSEWHERE)) == (100, 100)
        assert sorted(floor.tried) == sorted([*(f"broken {t}" for t in tickets)] * 2 + ["fine"] * 50)

    async def test_an_undecodable_record_is_put_back_on_its_topic_byte_for_byte(self, floor: Floor) -> None:
        body = json.dumps({"ticket_id": "t1", "body": "hello"}).encode()
        async with floor.bench.worker():
            await floor.put(body, b"not its ticket", traceparent=b"x", odd=b"\xff")
            [one] = await floor.until_waiting(1)
            assert (one.standing, one.letter.error, one.letter.ticket_id) == (Standing.OPEN, "Undecodable", "t1")
            told = await floor.do()
            assert fates(told) == [Fate.PUBLISHED]
            [again] = await floor.until_waiting(1)
        first, second = await floor.bench.read(floor.bench.topic.name, 2)
        assert (second.key, second.value) == (first.key, first.value)
        assert second.headers == (*first.headers, ("switchyard-redrives", b"1"))
        assert again.letter.letter_id != one.letter.letter_id
        assert (again.redrives, again.letter.put_back) == (1, 1)
        standings = [found.standing for found in await floor.desk.found(floor.wanted())]
        assert standings == [Standing.REDRIVEN, Standing.OPEN]

    async def test_what_was_redriven_three_times_is_held_back_until_somebody_insists(self, floor: Floor) -> None:
        async with floor.bench.worker():
            await floor.bench.submit("sick", "broken")
            await floor.put(b"no json", key=None)
            await floor.until_waiting(2)
            for nth in range(3):
                told = await floor.do()
                assert sorted(fates(told)) == [Fate.FREED, Fate.PUBLISHED]

                async def both_failed_again(redrives: int = nth + 1) -> bool:
                    return [one.redrives for one in await floor.waiting()] == [redrives] * 2

                await until(both_failed_again)
            held = await floor.do()
            assert fates(held) == [Fate.HELD_BACK] * 2
            assert floor.tried == ["broken"] * 4
            floor.broken = False
            forced = await floor.do(force=True, ticket_id="sick")
            assert fates(forced) == [Fate.FREED]
            await floor.until_replied("sick", "broken")
        assert [one.letter.error for one in await floor.waiting()] == ["Undecodable"]

    async def test_a_job_is_stopped_resumed_and_cancelled_and_no_letter_is_redriven_twice(self, floor: Floor) -> None:
        async with floor.bench.worker():
            for n in range(6):
                await floor.bench.submit(f"t{n}", f"broken {n}")
            await floor.until_waiting(6)
            floor.broken = False
            job, letters = await floor.desk.plan(floor.wanted(), Asked(Act.REDRIVE, "mia", rate=1.0))
            await floor.desk.begin(job, letters)
            stopping = asyncio.Event()
            working = asyncio.create_task(floor.desk.work(job.job_id, stopping))

            async def acted_on(count: int) -> bool:
                return fates(await floor.desk.told(job.job_id)).count(Fate.FREED) >= count

            await until(lambda: acted_on(1))
            with pytest.raises(SupportError, match="somebody works on the job"):
                await floor.desk.work(job.job_id, asyncio.Event())
            stopping.set()
            assert (await working).job.status is JobStatus.RUNNING
            freed = fates(await floor.desk.told(job.job_id)).count(Fate.FREED)
            resumed = asyncio.create_task(floor.desk.work(job.job_id, asyncio.Event()))
            await until(lambda: acted_on(freed + 1))
            await floor.desk.cancel(job.job_id)
            told = await resumed
            assert told.job.status is JobStatus.CANCELLED
            assert set(fates(told)) == {Fate.FREED, Fate.PLANNED}
            rest = await floor.do()
            assert len(rest.letters) == fates(told).count(Fate.PLANNED)
            for n in range(6):
                await floor.until_replied(f"t{n}", f"broken {n}")
        assert sorted(floor.tried) == sorted([f"broken {n}" for n in range(6)] * 2)

    async def test_letters_are_counted_by_fingerprint_and_found_by_what_they_are_about(self, floor: Floor) -> None:
        async with floor.bench.worker():
            await floor.bench.submit("t1", "broken")
            await floor.bench.submit("t2", "broken")
            await floor.put(b'{"ticket_id":"t3","tenant_id":"acme"}', b"t3")
            found = await floor.until_waiting(3)
        document = listed(found, limit=1)
        assert [(one["count"], one["error"]) for one in document["fingerprints"]] == [
            (2, "ContractBroken"),
            (1, "Undecodable"),
        ]
        assert (document["count"], len(document["letters"])) == (3, 1)
        assert "and 2 more" in as_lines(document)
        [acme] = await floor.waiting(tenant_id="acme")
        assert acme.letter.ticket_id == "t3"
        assert [one.letter.ticket_id for one in await floor.waiting(ticket_id="t2")] == ["t2"]
        assert len(await floor.waiting(error="ContractBroken")) == 2
        assert len(await floor.waiting(fingerprint=acme.letter.fingerprint)) == 1
        assert len(await floor.waiting(letter_ids=frozenset({acme.letter.letter_id}))) == 1
        last = max(one.letter.failed_at for one in found)
        assert len(await floor.waiting(since=last + timedelta(milliseconds=1))) == 0
        assert len(await floor.waiting(since=last)) + len(await floor.waiting(until=last)) == 3

    async def test_a_letter_is_shown_with_its_record_and_secrets_only_when_asked_for(self, floor: Floor) -> None:
        async with floor.bench.worker():
            await floor.bench.submit("sick", f"broken: my card is {SECRET_CARD}")
            await floor.put(b"\xff\xfe", b"k")
            letters = await floor.until_waiting(2)
        [sick] = [one for one in letters if one.letter.ticket_id == "sick"]
        one, record = await floor.desk.find(sick.letter.letter_id)
        assert SECRET_CARD not in as_text(shown(one, record, raw=False))
        assert "my card is [CARD_1]" in as_text(shown(one, record, raw=False))
        assert SECRET_CARD in as_text(shown(one, record, raw=True))
        [odd] = [one for one in letters if one.letter.ticket_id == ""]
        one, record = await floor.desk.find(odd.letter.letter_id)
        assert shown(one, record, raw=True)["record"]["value"] == {"base64": "//4="}
        assert shown(one, record, raw=False)["record"]["value"]["bytes"] == 2
        with pytest.raises(SupportError, match="there is no dead letter 'x'"):
            await floor.desk.find("x")

    async def test_a_ticket_is_redriven_also_when_its_letter_expired_in_the_topic(self, floor: Floor) -> None:
        topic = dead_letter_topic(floor.bench.topic.name, floor.group)
        async with floor.bench.worker():
            await floor.bench.submit("sick", "broken")
            await floor.until_waiting(1)
            async with floor.bench._admin() as admin:
                [letter] = await read_letters(floor.bench.connection, floor.group, floor.bench.topic)
                place = letter.copies[0]
                await admin.delete_records({TopicPartition(topic, place.partition): RecordsToDelete(place.offset + 1)})
            [one] = await floor.waiting()
            assert (one.letter.copies, one.letter.error, one.letter.tenant_id) == ((), "ContractBroken", "default")
            floor.broken = False
            assert fates(await floor.do()) == [Fate.FREED]
            await floor.until_replied("sick", "broken")

    async def test_the_same_letter_written_twice_is_one(self, floor: Floor) -> None:
        """A worker that died after writing a dead letter leaves a second one."""
        topic = dead_letter_topic(floor.bench.topic.name, floor.group)
        async with floor.bench.worker():
            await floor.put(b"no json", b"k")
            await floor.until_waiting(1)
            [written] = await floor.bench.read(topic, 1)
            await floor.bench.publisher.put(topic, key=written.key, value=written.value, headers=written.headers)
            await floor.bench.publisher.put(topic, key=b"stranger", value=b"x")
            [one] = await floor.waiting()
            assert len(one.letter.copies) == 2
            assert fates(await floor.do()) == [Fate.PUBLISHED]
        assert len(await floor.bench.read(floor.bench.topic.name, 2)) == 2

    async def test_a_dry_run_tells_and_changes_nothing(self, floor: Floor) -> None:
        async with floor.bench.worker():
            await floor.bench.submit("sick", "broken")
            await floor.until_waiting(1)
            job, letters = await floor.desk.plan(floor.wanted(), Asked(Act.REDRIVE, "mia"))
            assert [letter.ticket_id for letter in letters] == ["sick"]
            assert await floor.desk.jobs() == []
            assert len(await floor.waiting()) == 1
            with pytest.raises(SupportError, match="there is no job"):
                await floor.desk.told(job.job_id)

    async def test_while_its_group_is_rewound_no_letter_is_redriven(self, floor: Floor) -> None:
        async with floor.bench.worker():
            await floor.bench.submit("sick", "broken")
            await floor.until_waiting(1)
            job, letters = await floor.desk.plan(floor.wanted(), Asked(Act.REDRIVE, "mia"))
            desk, sentence = floor.desk, f"bo rewinds {floor.group} at this moment; try again once that is done"
            async with rewinding_alone(desk.leases, desk.book, floor.group, "bo"):
                with pytest.raises(SupportError, match=sentence):
                    await desk.begin(job, letters)
                assert await desk.jobs() == []
            await desk.begin(job, letters)
            async with rewinding_alone(desk.leases, desk.book, floor.group, "bo"):
                with pytest.raises(SupportError, match=sentence):
                    await desk.work(job.job_id, asyncio.Event())
            floor.broken = False
            assert fates(await desk.work(job.job_id, asyncio.Event())) == [Fate.FREED]

    async def test_while_letters_are_redriven_their_group_is_not_rewound(self, floor: Floor) -> None:
        async with floor.bench.worker():
            for n in range(3):
                await floor.bench.submit(f"sick{n}", "broken")
            await floor.until_waiting(3)
            desk, stopping = floor.desk, asyncio.Event()
            job, letters = await desk.plan(floor.wanted(), Asked(Act.REDRIVE, "mia", rate=1))
            await desk.begin(job, letters)
            working = asyncio.create_task(desk.work(job.job_id, stopping))

            async def one_is_freed() -> bool:
                return Fate.FREED in fates(await desk.told(job.job_id))

            await until(one_is_freed)
            with pytest.raises(SupportError, match=f"mia redrives .* wait for the job {job.job_id}, or end it with"):
                async with rewinding_alone(desk.leases, desk.book, floor.group, "bo"):
                    pass
            with pytest.raises(SupportError, match="somebody works on the job"):
                await desk.work(job.job_id, asyncio.Event())
            stopping.set()
            await working
            async with rewinding_alone(desk.leases, desk.book, floor.group, "bo"):
                pass


class TestInMemory(LettersContract):
    @pytest.fixture
    def floor(self, bench: Bench) -> Floor:
        stores = memory_stores()
        assert isinstance(stores.parking, MemoryParking)
        return floor_of(bench, stores, MemoryLetterBook(stores.parking))


@pytest.mark.postgres
class TestOnPostgres(LettersContract):
    @pytest.fixture
    def floor(self, bench: Bench, pool: asyncpg.Pool) -> Floor:
        return floor_of(bench, postgres_stores(pool), PostgresLetterBook(pool))
