"""One run: a small system, a load, one to three faults, and what lies there afterwards."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError

from contracts.topics import EFFECTS, OUTCOMES, REVIEW, USAGE, Topic, dead_letters_of
from state.migrate import migrate
from tests.drill.bed import ROLE, Bed
from tests.drill.crew import Crew, Member
from tests.drill.evidence import gathered, logged
from tests.drill.ledger import Ledger, true_time
from tests.drill.load import Desk, Load
from tests.drill.oracles import Evidence, Violation, judge
from tests.drill.plan import Plan
from tests.drill.rows import Row
from tests.drill.station import Station
from tests.drill.watching import (
    Sampler,
    TopicRecord,
    admin_of,
    committed_of,
    create_topic,
    delete_topics,
    ends_of,
    set_offsets,
)
from tests.services.redis import flush

ASKER, CARRIER = "asker", "carrier"
_REST_WITHIN_S = 45.0  # while records are settled, the time does not count: that is work, on however slow a machine
_REST_AT_LAST_S = 240.0
_LOOK_EVERY_S = 0.1


@dataclass
class Run:
    """A system under test, as faults see it."""

    plan: Plan
    bed: Bed
    folder: Path
    rng: Random
    ledger: Ledger
    load: Load
    desk: Desk
    crew: Crew
    sampler: Sampler
    begins: dict[str, Mapping[int, int]]  # of the shared topics
    notes: list[str] = field(default_factory=list)
    order_of_messages: bool = True
    earlier_logs: list[Any] = field(default_factory=list)  # records of topics that were deleted, with generation
    retired: list[float] = field(default_factory=list)  # when the topic was about to be deleted
    publishing: list[asyncio.Task[None]] = field(default_factory=list)
    evidence: Evidence | None = None

    @property
    def name(self) -> str:
        """Of the run: part of every name in it."""
        return self.plan.name

    @property
    def topic(self) -> str:
        """Where tickets come in."""
        return f"{self.name}.tickets"

    @property
    def groups(self) -> Mapping[str, str]:
        """Group: its topic."""
        return {self.group(ASKER): self.topic, self.group(CARRIER): EFFECTS.name}

    def group(self, kind: str) -> str:
        """The group of a kind of worker."""
        return f"{self.name}.{kind}"

    @property
    def dead_letters(self) -> Mapping[str, str]:
        """Group: its dead-letter topic."""
        return {group: dead_letters_of(Topic(topic, ()), group).name for group, topic in self.groups.items()}

    def any_member(self, kind: str | None = None) -> Member:
        """One of the members."""
        return self.rng.choice(self.crew.of(kind or self.rng.choice((ASKER, ASKER, CARRIER))))

    async def hire(self, kind: str, *, skew_s: float = 0.0, wait: bool = True) -> Member:
        """One more member of a group."""
        number = len(self.crew.members)
        station = Station(
            kind=kind,
            group=self.group(kind),
            topic=self.topic,
            bootstrap=self.bed.kafka_address(number),
            dsn=self.bed.dsn(number, self.name),
            redis_url=self.bed.redis_url,
            folder=str(self.folder),
            lanes=self.plan.lanes,
        )
        return await self.crew.hire(station, skew_s=skew_s, wait=wait)

    def publish(self) -> None:
        """Publish what the load holds; the run waits for it before it judges."""
        sequences, self.load.sequences = self.load.sequences, []
        self.publishing.append(asyncio.create_task(self.desk.publish(sequences)))

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A session of the superuser in the run's database, for a moment."""
        connection = await asyncpg.connect(self.bed.postgres.dsn(self.name), timeout=5)
        try:
            yield connection
        finally:
            connection.terminate()

    async def retire(self, records: Sequence[TopicRecord]) -> None:
        """Note that the topic of these records is about to be deleted: what comes next is another generation."""
        generation = len(self.retired)
        self.earlier_logs += [logged(self.group(ASKER), record, generation) for record in records]
        self.retired.append(true_time())
        self.sampler.generations[self.topic] = generation + 1
        self.sampler.blind_to.add(self.topic)

    def generation_at(self, at: float) -> int:
        """How often the topic had been made anew by a time."""
        return sum(retired_at <= at for retired_at in self.retired)

    def note(self, text: str) -> None:
        """Tell what was done."""
        self.notes.append(text)
        self.ledger.note("fault", text=text)

    async def until_at_rest(self, limit_s: float) -> float | None:
        """Wait until nothing is left to do; returns how long it took, None when nothing was settled for too long."""
        began, why, settled = time.monotonic(), "nobody looked", 0
        moved = began
        while (now := time.monotonic()) - moved < limit_s and now - began < _REST_AT_LAST_S:
            with contextlib.suppress(KafkaError, TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                why = await asyncio.wait_for(self.why_not_at_rest(), 10)
                if not why:
                    return time.monotonic() - began
                by_now = await asyncio.wait_for(self.settled(), 10)
                if by_now > settled:
                    settled, moved = by_now, time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)
        self.notes.append(why)
        return None

    async def settled(self) -> int:
        """How many records were settled so far, by all groups."""
        async with self.database() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM inbox"))

    async def why_not_at_rest(self) -> str:
        """What is left to do; "" when nothing is."""
        async with self.database() as connection:
            unpublished, parked = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM parked_tickets WHERE due_at IS NOT NULL)"
            )
        if unpublished or parked:
            return f"{unpublished} unpublished, {parked} parked"
        async with admin_of(self.bed.connection) as admin:
            for group, topic in self.groups.items():
                committed = await committed_of(admin, group, topic)
                ends = await ends_of(self.bed.connection, topic)
                lag = {p: end - committed.get(p, 0) for p, end in ends.items() if end > committed.get(p, 0)}
                if lag:
                    return f"lag of {group}: {lag}"
        return ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    plan: Plan
    violations: list[Violation]
    notes: list[str]
    took_s: float
    events: int
    effects: int
    tries: int  # of effects: those above `effects` were absorbed by their key
    bought_twice: int  # calls paid again for an answer that did not reach the journal
    recovery_s: float | None


async def drill(plan: Plan, bed: Bed, folder: Path, *, keep: bool = False) -> Result:
    """Do one run. Its ledgers stay in the folder when a law was broken, or when told to keep them."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tries").mkdir()
    async with _system(plan, bed, folder) as run:
        recovery_s = await _faults(run)
        await run.crew.close()
        evidence = await gathered(run)
        for sample in run.sampler.samples:
            run.ledger.note("sample", group=sample.group, next=sample.next, seen_at=sample.at)
        evidence.recovery_s, evidence.limit_s = recovery_s, _REST_WITHIN_S
        evidence.why_not_at_rest = run.notes[-1] if recovery_s is None else ""
    if failures := [failure for way in bed.ways for failure in way.failures]:
        raise ExceptionGroup("the proxies failed", failures)  # type: ignore[type-var]
    violations = judge(evidence)
    if not violations and not keep:
        shutil.rmtree(folder)
    applied = {effect.key for effect in evidence.effects}
    bought = [b.event for b in evidence.bought]
    return Result(
        plan,
        violations,
        run.notes,
        time.monotonic() - began,
        len(evidence.accepted),
        len(applied),
        len(evidence.effects),
        len(bought) - len(set(bought)),
        recovery_s,
    )


async def _faults(run: Run) -> float | None:
    """Publish, do the faults one after the other, heal; returns how long the system took to come to rest."""
    run.load.ordinary(run.plan.tickets)
    run.publish()
    for row in run.plan.rows:
        await asyncio.sleep(run.rng.uniform(0.2, 1.0))
        await _one_fault(run, row)
    await run.bed.heal()
    run.ledger.note("healed")
    for member in run.crew.members:
        member.send(signal.SIGCONT)
    await asyncio.gather(*run.publishing)
    run.ledger.note("published")
    recovery_s = await run.until_at_rest(_REST_WITHIN_S)
    run.ledger.note("at rest", recovery_s=recovery_s)
    return recovery_s


async def _one_fault(run: Run, row: Row) -> None:
    run.ledger.note("row", number=row.number, name=row.name)
    try:
        await asyncio.wait_for(row.inflict(run), row.takes_s)
    except TimeoutError:
        run.note(f"row {row.number} was cut short after {row.takes_s:g} s")


@contextlib.asynccontextmanager
async def _system(plan: Plan, bed: Bed, folder: Path) -> AsyncIterator[Run]:
    """Topics, a database, workers that are ready; gone afterwards."""
    await bed.heal()
    await _made(plan, bed)
    rng, ledger = Random(f"{plan.seed}/faults"), Ledger(folder / "drill.ledger")
    load = Load(f"d{plan.seed}", Random(f"{plan.seed}/load"), plan.spread_s)
    desk = Desk(bed.connection, f"{plan.name}.tickets", ledger)
    crew = Crew(folder, bed.reaper, ledger)
    sampler = Sampler(bed.connection, {})
    begins = {t.name: await ends_of(bed.connection, t.name) for t in (EFFECTS, OUTCOMES, REVIEW, USAGE)}
    run = Run(plan, bed, folder, rng, ledger, load, desk, crew, sampler, begins)
    sampler.groups = run.groups
    await set_offsets(bed.connection, run.group(CARRIER), EFFECTS.name, begins[EFFECTS.name])
    sampling = asyncio.create_task(sampler.run())
    try:
        kinds = [ASKER] * plan.askers + [CARRIER] * plan.carriers
        await asyncio.gather(*(run.hire(kind) for kind in kinds))
        yield run
    finally:
        await bed.heal()
        await _ended(sampling, *run.publishing)
        await asyncio.gather(crew.close(), desk.close())
        await _unmade(run)
        ledger.close()


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they are over: clients swallow a cancellation now and then."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1.0)


async def _made(plan: Plan, bed: Bed) -> None:
    asker, carrier = f"{plan.name}.{ASKER}", f"{plan.name}.{CARRIER}"
    tickets = f"{plan.name}.tickets"
    letters = [dead_letters_of(Topic(tickets, ()), asker), dead_letters_of(EFFECTS, carrier)]

    async def database() -> None:
        await asyncio.to_thread(bed.postgres.execute, f'CREATE DATABASE "{plan.name}" OWNER {ROLE}')
        await migrate(f"postgresql://{ROLE}@127.0.0.1:{bed.postgres.port}/{plan.name}")

    await asyncio.gather(
        database(),
        asyncio.to_thread(flush, bed.redis_direct),
        create_topic(bed.connection, tickets, plan.partitions, max_message_bytes=str(2 << 20)),
        *(
            create_topic(
                bed.connection,
                topic.name,
                plan.partitions,
                max_message_bytes=str(3 << 20),
                message_timestamp_type="LogAppendTime",
            )
            for topic in letters
        ),
    )


async def _unmade(run: Run) -> None:
    with contextlib.suppress(KafkaError, TimeoutError, OSError):
        await delete_topics(run.bed.connection, [run.topic, *run.dead_letters.values()])
    await asyncio.to_thread(run.bed.postgres.drop_database, run.name)
