"""Lag against an oracle: what is not finished, while workers finish it in any order and Kafka's log changes below."""

import asyncio
import contextlib
import json
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from bus.codec import Codec
from bus.consumer import Worker
from bus.follow import Follower
from bus.intake import Intake
from bus.lag import GroupLag, LagReader, lag_reader
from contracts.errors import ContractBroken, ModelUnavailable
from contracts.events import Event
from contracts.ports import Position
from contracts.topics import dead_letter_topic
from state.progress import PostgresProgress
from state.stores import postgres_stores
from tests.contract.worker.bench import FAST, Answering, Bench, until
from tests.contract.worker.bench import reader as topic_reader

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

SAMPLES = 100
STEADY = 0.15  # so much of what is submitted fails somehow
# Few records of a partition are in hand at a time, so that partitions are paused again and again.
PAUSING = replace(FAST, drain_timeout_s=0.2, lanes=64, intake=Intake(high_records=25))
NOT_NOW_S = 300.0


@dataclass
class Gates:
    """Holds each record's handler until it is let through."""

    waiting: list[asyncio.Event] = field(default_factory=list)  # a record may be in two workers' hands for a while
    open: bool = False

    async def hold(self, event: Event) -> None:
        said = event.data.body  # type: ignore[attr-defined]
        gate = asyncio.Event()
        self.waiting.append(gate)
        try:
            if not self.open:
                await gate.wait()
        finally:
            self.waiting.remove(gate)
        if said.startswith("busy"):
            raise ModelUnavailable("not now", retry_after_s=NOT_NOW_S)
        if said.startswith("bad"):
            raise ContractBroken("never")

    def let_through(self, chance: random.Random, most: int) -> None:
        """Some of those that wait, in no order."""
        for gate in chance.sample(self.waiting, min(most, len(self.waiting))):
            gate.set()

    def let_all_through(self) -> None:
        self.open = True
        for gate in self.waiting:
            gate.set()


@dataclass
class Oracle:
    """Knows what was published, and asks neither inbox nor offsets what of it is done."""

    pool: asyncpg.Pool
    letters: Follower
    published: dict[str, Position] = field(default_factory=dict)  # by what the record says
    buried: set[tuple[int, int]] = field(default_factory=set)

    async def unfinished(self) -> dict[int, int]:
        """By partition."""
        answered = await self.answered()
        self.buried |= {_origin(letter) for letter in await self.letters.rest()}
        left: dict[int, int] = defaultdict(int)
        for said, position in self.published.items():
            if said not in answered and (position.partition, position.offset) not in self.buried:
                left[position.partition] += 1
        return dict(left)

    async def answered(self) -> set[str]:
        """What tickets were answered with: each record's own text."""
        states = await self.pool.fetch("SELECT state FROM tickets")
        return {round_["reply"] for [state] in states for round_ in json.loads(state)["rounds"]}

    async def truncated(self, partition: int, below: int) -> None:
        """Forget what retention took before it was handled; what is parked is kept by the database."""
        kept = await self.pool.fetch(
            "SELECT kafka_offset FROM parked_tickets WHERE partition = $1"
            " UNION SELECT kafka_offset FROM parked_records WHERE partition = $1",
            partition,
        )
        safe = {row[0] for row in kept}
        self.published = {
            said: position
            for said, position in self.published.items()
            if position.partition != partition or position.offset >= below or position.offset in safe
        }


def _origin(letter: object) -> tuple[int, int]:
    headers = dict(letter.headers)  # type: ignore[attr-defined]
    return int(headers["kafka_dlt-original-partition"]), int(headers["kafka_dlt-original-offset"])


@dataclass
class Script:
    """Publishes, lets go, truncates: whatever comes to its mind."""

    bench: Bench
    oracle: Oracle
    gates: Gates
    producer: AIOKafkaProducer  # in transactions
    chance: random.Random
    count: int = 0

    async def publish(self, most: int) -> None:
        """Some records: for a ticket that has some already or for a new one, good and bad."""
        for _ in range(self.chance.randrange(most)):
            said = self.said()
            ticket_id = f"t{self.chance.randrange(1 + self.count // 2)}"
            self.oracle.published[said] = await self.bench.submit(ticket_id, said)
        if self.chance.random() < STEADY:
            junk = uuid.uuid4().hex
            position = await self.bench.publisher.put(self.bench.topic.name, key=junk.encode(), value=b"{" + b"?" * 9)
            self.oracle.published[junk] = position

    async def transact(self) -> None:
        """Some records in a transaction, which is committed or aborted; both leave markers behind."""
        told: dict[str, asyncio.Future[object]] = {}
        commits = self.chance.random() < 0.6
        await self.producer.begin_transaction()
        for _ in range(self.chance.randrange(1, 5)):
            said, ticket_id = self.said(), f"x{self.chance.randrange(1000)}"
            value = json.dumps({"ticket_id": ticket_id, "body": said}).encode()
            told[said] = await self.producer.send(self.bench.topic.name, value, key=ticket_id.encode())
        if not commits:
            await self.producer.flush()
            await self.producer.abort_transaction()
            return
        await self.producer.commit_transaction()
        for said, future in told.items():
            sent = await future
            self.oracle.published[said] = Position(sent.topic, sent.partition, sent.offset)  # type: ignore[attr-defined]

    def said(self) -> str:
        self.count += 1
        kind = self.chance.random()
        word = "busy" if kind < STEADY / 2 else "bad" if kind < STEADY else "good"
        return f"{word} {self.count}"

    async def truncate(self, partition: int, below: int) -> None:
        """Have the log begin later."""
        admin = AIOKafkaAdminClient(**self.bench.connection.client_options())
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(self.bench.topic.name, partition): RecordsToDelete(below)})
        finally:
            await admin.close()
        await self.oracle.truncated(partition, below)


@dataclass
class Samples:
    """Compares at moments at which the truth stands still for as long as a look takes."""

    reader: LagReader
    oracle: Oracle
    taken: int = 0
    kafka_was_wrong: int = 0

    async def take(self) -> GroupLag:
        while True:
            truth = await self.oracle.unfinished()
            seen = await self.reader.look()
            if truth == await self.oracle.unfinished():
                break
        told = {row.partition: row.unfinished for row in seen.partitions if row.unfinished}
        assert told == truth, f"sample {self.taken}"
        assert not any(row.at_most or row.error for row in seen.partitions)
        self.taken += 1
        self.kafka_was_wrong += sum(row.raw or 0 for row in seen.partitions) != sum(truth.values())
        return seen


@pytest.fixture
async def script(bench: Bench, pool: asyncpg.Pool) -> AsyncIterator[Script]:
    gates = Gates()
    bench.stores = postgres_stores(pool)
    bench.agent.meanwhile = gates.hold
    producer = AIOKafkaProducer(**bench.connection.client_options(), transactional_id=uuid.uuid4().hex)
    await producer.start()
    letters = dead_letter_topic(bench.topic.name, bench.agent.name)
    try:
        async with topic_reader(bench.connection, letters, fetch_max_wait_ms=20) as consumer:
            yield Script(bench, Oracle(pool, Follower(consumer)), gates, producer, random.Random(16))
    finally:
        await producer.stop()


@pytest.fixture
async def reader(bench: Bench, pool: asyncpg.Pool) -> AsyncIterator[LagReader]:
    codec = Codec(timedelta(hours=1))
    async with lag_reader(bench.connection, bench.agent.name, bench.topic, PostgresProgress(pool), codec) as reader:
        yield reader


@contextlib.asynccontextmanager
async def workers(bench: Bench, gates: Gates, count: int) -> AsyncIterator[list[Worker]]:
    async with contextlib.AsyncExitStack() as stack:
        agents = [Answering(bench.agent.name, meanwhile=gates.hold) for _ in range(count)]
        yield [await stack.enter_async_context(bench.worker(agent, PAUSING)) for agent in agents]


@pytest.mark.timeout(300)
async def test_what_is_told_is_what_an_oracle_knows_whatever_happens(script: Script, reader: LagReader) -> None:
    """Out of order, paused, parked, dead-lettered, unreadable, aborted, truncated, before and between workers."""
    bench, samples = script.bench, Samples(reader, script.oracle)
    for _ in range(5):  # nothing is committed yet
        await script.publish(40)
        await script.transact()
        await samples.take()
    await script.truncate(0, 7)
    await samples.take()

    async def stir(times: int) -> None:
        for _ in range(times):
            await script.publish(6)
            if script.chance.random() < 0.3:
                await script.transact()
            script.gates.let_through(script.chance, most=12)
            await samples.take()

    async with workers(bench, script.gates, 3):
        await stir(45)
    seen = await samples.take()
    assert not seen.group.members
    open_in = max(seen.partitions, key=lambda row: row.open)  # retention takes what nobody handled yet
    assert open_in.begin is not None
    await script.truncate(open_in.partition, open_in.begin + open_in.open // 2)
    await samples.take()
    async with workers(bench, script.gates, 3):
        await stir(SAMPLES - samples.taken - 1)
        script.gates.let_all_through()
        await until(bench.all_committed_but_gaps)
        last = await samples.take()
    assert samples.taken == SAMPLES
    assert samples.kafka_was_wrong > SAMPLES // 2
    assert sum(row.open for row in last.partitions) == 0
    assert sum(row.waiting for row in last.partitions) > 0
    assert sum(row.dead_letters for row in last.partitions) > 0
    assert last.letters_written >= sum(row.dead_letters for row in last.partitions)


async def test_a_fresh_reader_tells_the_same_as_one_that_watched(
    script: Script, reader: LagReader, pool: asyncpg.Pool
) -> None:
    async with workers(script.bench, script.gates, 2):
        for _ in range(5):
            await script.publish(30)
            script.gates.let_through(script.chance, most=15)
            await reader.look()
    watched = await Samples(reader, script.oracle).take()
    codec = Codec(timedelta(hours=1))
    bench = script.bench
    async with lag_reader(bench.connection, bench.agent.name, bench.topic, PostgresProgress(pool), codec) as another:
        assert await another.look() == watched


async def test_a_group_that_is_set_back_has_nothing_to_do_again(script: Script, reader: LagReader) -> None:
    """What Kafka counts after a rewind is work that the inbox drops."""
    bench = script.bench
    script.gates.let_all_through()
    for number in range(20):
        await bench.submit(f"t{number}", f"good {number}")
    async with workers(bench, script.gates, 1):
        await until(bench.all_committed)
    assert sum(row.unfinished for row in (await reader.look()).partitions) == 0
    await bench.commit(dict.fromkeys(range(bench.topic.partitions), 0))
    seen = await reader.look()
    assert sum(row.raw or 0 for row in seen.partitions) == 20
    assert sum(row.unfinished for row in seen.partitions) == 0


async def test_members_and_what_they_were_dealt_are_told(script: Script, reader: LagReader) -> None:
    async with workers(script.bench, script.gates, 2):

        async def all_is_dealt() -> bool:
            members = (await reader.look()).group.members
            return sorted(p for member in members for p in member.partitions) == [0, 1, 2, 3]

        await until(all_is_dealt)
        group = (await reader.look()).group
        assert (group.state, len(group.members)) == ("Stable", 2)
