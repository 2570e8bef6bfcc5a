"""The faults, each a function that inflicts one and heals it, named after what breaks. Numbers are fixed."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
from redis import Redis

from contracts.topics import EFFECTS
from tests.drill import taps
from tests.drill.bed import freeze, thaw
from tests.drill.hooks import BEFORE_MARK, HOOKS, IN_HANDLER, Order
from tests.drill.watching import (
    add_partitions,
    create_topic,
    delete_topics,
    ends_of,
    read_topic,
    set_offsets,
    with_config,
)

if TYPE_CHECKING:
    from tests.drill.run import Run

SESSION_S = 3.0  # after which the group gives a silent worker's partitions away
_NOT_COORDINATOR, _LOADING, _REBALANCING, _UNKNOWN_MEMBER, _ILLEGAL_GENERATION = 16, 14, 27, 25, 22
_OUT_OF_ORDER, _UNKNOWN_PRODUCER, _FENCED, _INVALID_EPOCH = 45, 59, 90, 47


@dataclass(frozen=True, slots=True)
class Row:
    """A fault: `typical_s` is what it takes here, `takes_s` the most it may. It can ask for a system that fits."""

    number: int
    inflict: "Callable[[Run], Awaitable[None]]"
    typical_s: float
    takes_s: float = 40.0
    partitions: int = 0  # of the tickets' topic; 0: any
    askers: int = 1  # at least
    lanes: int = 1  # at least

    @property
    def name(self) -> str:
        """In words."""
        return self.inflict.__name__.replace("_", " ")


# --- processes --------------------------------------------------------------------------------------------


async def killed_at_a_hook(run: "Run") -> None:
    """Row 1: SIGKILL before the model, after it, after the database, or between publishing and marking."""
    for _ in range(run.rng.choice((1, 2))):
        hook, nth = run.rng.choice(HOOKS), run.rng.randint(1, 20)
        member = run.any_member()
        run.note(f"kill {member.name} {hook}, passage {nth}")
        member.order(Order(hook, nth, "kill"))
        await asyncio.sleep(1.0)


async def terminated_with_500_in_flight(run: "Run") -> None:
    """Row 2: SIGTERM while 500 handlers are under way. What does not end in time comes again elsewhere."""
    run.load.at_once(500, wait_s=run.rng.choice((1.0, 1.0, 8.0)))
    run.publish()
    await asyncio.sleep(2.0)
    member = run.any_member("asker")
    run.note(f"SIGTERM to {member.name} with 500 in flight")
    await run.crew.dismiss(member)
    await run.hire("asker", wait=False)


async def stopped_and_come_back(run: "Run") -> None:
    """Row 3: SIGSTOP for longer than the session lasts, then SIGCONT: a zombie with old state in its hands."""
    member = run.any_member()
    stop_s = run.rng.uniform(1.5, 2.5) * SESSION_S
    run.note(f"SIGSTOP {member.name} for {stop_s:.1f} s")
    member.send(signal.SIGSTOP)
    await asyncio.sleep(stop_s)
    member.send(signal.SIGCONT)


async def a_blocked_loop(run: "Run") -> None:
    """Row 4: a handler blocks the event loop for longer than the session lasts."""
    member, block_s = run.any_member(), run.rng.uniform(1.2, 1.8) * SESSION_S
    run.note(f"block the loop of {member.name} for {block_s:.1f} s")
    member.order(Order(IN_HANDLER, run.rng.randint(1, 5), "block", block_s))
    await asyncio.sleep(block_s)


async def a_rebalance_storm(run: "Run") -> None:
    """Row 5: members come and are killed, again and again."""
    kind = run.rng.choice(("asker", "carrier"))
    run.note(f"a rebalance storm among the {kind}s")
    for _ in range(4):
        member = await run.hire(kind, wait=run.rng.random() < 0.5)
        await asyncio.sleep(run.rng.uniform(0.1, 1.0))
        gently = run.rng.random() < 0.3 and member.process is not None
        await run.crew.dismiss(member, with_signal=signal.SIGTERM if gently else signal.SIGKILL)


async def revoked_and_given_back(run: "Run") -> None:
    """Row 6: partitions leave and come back within the time of one handler."""
    run.load.at_once(40, wait_s=3.0)
    run.publish()
    await asyncio.sleep(0.5)
    run.note("a second member joins and leaves while handlers run")
    member = await run.hire("asker")
    await run.crew.dismiss(member, with_signal=run.rng.choice((signal.SIGTERM, signal.SIGKILL)))


async def an_idle_member_takes_over(run: "Run") -> None:
    """Row 7: more members than partitions; the idle one takes over when those that have some die."""
    busy = list(run.crew.of("asker"))
    await asyncio.gather(*(run.hire("asker") for _ in range(3 - len(busy))))
    await asyncio.sleep(3.0)
    run.note("kill two of three askers of two partitions")
    for member in run.rng.sample(run.crew.of("asker"), 2):
        member.kill()


# --- Kafka ------------------------------------------------------------------------------------------------


async def kafka_restarted(run: "Run") -> None:
    """Row 8: the broker is shut down and started again."""
    run.note("restart Kafka")
    await asyncio.to_thread(run.bed.kafka.stop)
    await asyncio.sleep(run.rng.uniform(0, 3))
    await asyncio.to_thread(run.bed.kafka.heal)


async def kafka_killed(run: "Run") -> None:
    """Row 9: kill -9 the broker."""
    run.note("kill Kafka")
    await asyncio.to_thread(run.bed.kafka.kill)
    await asyncio.sleep(run.rng.uniform(0, 1))
    await asyncio.to_thread(run.bed.kafka.heal)


async def coordinator_errors(run: "Run") -> None:
    """Row 10: the coordinator has moved, is loading, or knows neither member nor generation."""
    keys = (
        taps.OFFSET_COMMIT,
        taps.OFFSET_FETCH,
        taps.HEARTBEAT,
        taps.JOIN_GROUP,
        taps.SYNC_GROUP,
        taps.FIND_COORDINATOR,
    )
    for _ in range(3):
        key = run.rng.choice(keys)
        errors = {
            taps.FIND_COORDINATOR: (15,),
            taps.JOIN_GROUP: (_NOT_COORDINATOR, _LOADING, _UNKNOWN_MEMBER),
            taps.OFFSET_FETCH: (_NOT_COORDINATOR, _LOADING),
        }.get(key, (_NOT_COORDINATOR, _LOADING, _REBALANCING, _UNKNOWN_MEMBER, _ILLEGAL_GENERATION))
        error = run.rng.choice(errors)
        if key == taps.OFFSET_COMMIT or error == _REBALANCING:
            await _meddle(run, {taps.OFFSET_COMMIT, taps.HEARTBEAT}, error, times=run.rng.randint(1, 4), for_s=1.5)
        else:
            await _meddle(run, {key, taps.HEARTBEAT}, error, times=run.rng.randint(1, 4), for_s=1.5)


async def sequence_errors(run: "Run") -> None:
    """Row 11: the broker says that a producer's sequence is out of order, or that it is unknown or fenced."""
    for error in run.rng.sample((_OUT_OF_ORDER, _UNKNOWN_PRODUCER, _FENCED, _INVALID_EPOCH), 2):
        await _meddle(run, {taps.PRODUCE}, error, times=run.rng.randint(1, 3), for_s=1.5)


async def acknowledgements_lost(run: "Run") -> None:
    """Row 12: records arrive, and their acknowledgements get lost with the connection."""
    await _meddle(run, {taps.PRODUCE}, None, times=run.rng.randint(2, 8), for_s=3.0)


async def _meddle(run: "Run", keys: set[int], error: int | None, *, times: int, for_s: float) -> None:
    mischief = run.bed.kafka_mischief
    mischief.api_keys, mischief.error, mischief.chance = frozenset(keys), error, 0.5
    mischief.done, mischief.left = 0, times
    await asyncio.sleep(for_s)
    mischief.clear()
    run.note(f"answers to {sorted(keys)} {'lost' if error is None else f'say {error}'}: {mischief.done}")


async def a_silent_broker(run: "Run") -> None:
    """Row 13: connections to Kafka stay and nothing arrives, for one half of the workers or all."""
    silent_s = run.rng.uniform(1.0, 2.5) * SESSION_S
    ways = run.rng.choice((run.bed.kafka_ways, run.bed.kafka_ways[:1], run.bed.kafka_ways[1:]))
    run.note(f"{len(ways)} of two ways to Kafka silent for {silent_s:.1f} s")
    for way in ways:
        way.weather.silent = True
    await asyncio.sleep(silent_s)
    for way in ways:
        if run.rng.random() < 0.5:
            way.reset()
        way.clear()


async def bad_weather(run: "Run") -> None:
    """Row 14: 200 ms ± 100, 64 KB/s, and bytes one by one, on the way to Kafka, to PostgreSQL, or both."""
    ways = run.rng.choice((run.bed.kafka_ways, run.bed.postgres_ways, run.bed.ways))
    run.note(f"bad weather on {len(ways)} ways")
    for way in ways:
        way.weather.latency_s, way.weather.jitter_s = 0.1, 0.05
        way.weather.bytes_per_s, way.weather.sliced = 64 * 1024, True
    await asyncio.sleep(5.0)
    for way in ways:
        way.clear()


# --- PostgreSQL -------------------------------------------------------------------------------------------


async def postgres_restarted(run: "Run") -> None:
    """Row 15: the database is restarted, fast or immediate."""
    service = run.bed.postgres.service
    if run.rng.random() < 0.5:
        run.note("restart PostgreSQL fast")
        await asyncio.to_thread(service.stop)
    else:
        run.note("restart PostgreSQL immediate")
        os.kill(run.bed.postgres.service.pid, signal.SIGQUIT)  # type: ignore[attr-defined]
        await asyncio.to_thread(service.stop)
    await asyncio.sleep(run.rng.uniform(0, 2))
    await asyncio.to_thread(service.heal)


async def postgres_frozen(run: "Run") -> None:
    """Row 16: the database and all its backends stand still."""
    frozen_s = run.rng.uniform(3, 7)
    run.note(f"freeze PostgreSQL for {frozen_s:.1f} s")
    freeze(run.bed.postgres)
    await asyncio.sleep(frozen_s)
    thaw(run.bed.postgres)


async def commit_outcome_unknown(run: "Run") -> None:
    """Row 17: the connection is cut after a step was sent to be stored, before the answer."""
    mischief = run.bed.postgres_mischief
    mischief.marker = run.rng.choice((b"support.outcomes.v1", run.load.prefix.encode()))
    mischief.done, mischief.left = 0, run.rng.randint(2, 8)
    await asyncio.sleep(3.0)
    mischief.clear()
    run.note(f"answers of PostgreSQL lost: {mischief.done}")
    if run.rng.random() < 0.5:
        for way in run.bed.postgres_ways:
            way.weather.cut_after = run.rng.randint(100, 20_000)
        run.note("PostgreSQL cut in the middle of what was sent")
        await asyncio.sleep(1.0)


async def locks_and_lost_sessions(run: "Run") -> None:
    """Row 18: rows locked by somebody else, in the worst order, and sessions terminated."""
    async with run.database() as one, run.database() as other:
        for _ in range(3):
            tickets = await one.fetch("SELECT ticket_id FROM tickets ORDER BY random() LIMIT 30")
            names = [row["ticket_id"] for row in tickets]
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                async with one.transaction():
                    for name in names:
                        await one.execute("SELECT FROM tickets WHERE ticket_id = $1 FOR UPDATE", name)
                        await asyncio.sleep(0.03)
            ended = await other.fetchval(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE usename = 'drill' AND datname = current_database() AND random() < 0.5"
            )
            run.note(f"{len(names)} tickets locked, {ended} sessions terminated")


async def too_many_connections(run: "Run") -> None:
    """Row 20: the database lets five sessions in, and no more."""
    run.note("five connections for everybody")
    await _limit(run, 5)
    try:
        await asyncio.sleep(4.0)
    finally:
        await _limit(run, -1)


async def _limit(run: "Run", connections: int) -> None:
    async with run.database() as connection:
        await connection.execute(f'ALTER DATABASE "{run.name}" CONNECTION LIMIT {connections}')
        if connections > 0:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'drill' AND datname = current_database()"
            )


# --- Redis ------------------------------------------------------------------------------------------------


async def redis_gone_flushed_or_slow(run: "Run") -> None:
    """Row 21: Redis is killed, emptied, or two seconds late."""
    what = run.rng.choice(("gone", "flushed", "slow"))
    run.note(f"Redis {what}")
    if what == "gone":
        await asyncio.to_thread(run.bed.redis.kill)
        await asyncio.sleep(2.0)
        await asyncio.to_thread(run.bed.redis.heal)
    elif what == "flushed":
        for _ in range(10):
            await asyncio.to_thread(_flush, run.bed.redis_direct)
            await asyncio.sleep(0.2)
    else:
        run.bed.redis_way.weather.latency_s = 2.0
        await asyncio.sleep(3.0)
        run.bed.redis_way.clear()


def _flush(url: str) -> None:
    with Redis.from_url(url, socket_timeout=5) as client:
        client.flushall()


# --- what producers do ------------------------------------------------------------------------------------


async def poison(run: "Run") -> None:
    """Row 24: bytes that are no event, and tickets one of whose messages fails for good."""
    run.note("poison and curses")
    for _ in range(3):
        run.load.poison()
    run.load.cursed(5)
    run.publish()


async def oversized(run: "Run") -> None:
    """Row 25: a thousand headers, a body near the limit."""
    run.note("a header bomb and a large body")
    run.load.header_bomb()
    run.publish()


async def published_twice(run: "Run") -> None:
    """Row 26: the same id again, on another partition, with another body."""
    run.note("duplicates")
    run.load.duplicates(25)
    run.publish()


async def odd_orders(run: "Run") -> None:
    """Row 27: replies before their ticket, no keys, and one ticket that writes more than all others."""
    run.note("a hot ticket, records without keys, replies that come first")
    run.load.hot_key(300)
    run.load.without_key(10)
    run.load.out_of_order(10)
    run.publish()


async def clocks_that_are_wrong(run: "Run") -> None:
    """Row 28: a worker an hour ahead or behind, records stamped so, and deadlines that pass."""
    skew_s = run.rng.choice((-3600.0, 3600.0))
    run.note(f"a worker whose clock is {skew_s:+g} s off")
    run.desk.skew_ms = int(run.rng.choice((-1, 1)) * 3600_000)
    run.load.ordinary(15)
    run.publish()
    await run.hire(run.rng.choice(("asker", "carrier")), skew_s=skew_s)
    await asyncio.sleep(1.0)
    run.desk.skew_ms = 0


async def deadlines_that_pass(run: "Run") -> None:
    """Row 28, its other half: messages whose deadline is past, or passes while they wait."""
    run.note("late messages")
    run.load.late(12)
    run.publish()


async def dead_letters_that_cannot_be_written(run: "Run") -> None:
    """Row 29: the dead-letter topic refuses records for a while."""
    letters = run.dead_letters[run.group("asker")]
    run.note("an unwritable dead-letter topic")
    config = {"max.message.bytes": str(3 << 20), "message.timestamp.type": "LogAppendTime"}
    await with_config(run.bed.connection, letters, {**config, "max.message.bytes": "1000"})
    try:
        run.load.letters_that_are_large(4)
        run.publish()
        await asyncio.sleep(3.0)
    finally:
        await with_config(run.bed.connection, letters, config)


# --- what operators do ------------------------------------------------------------------------------------


async def partitions_added(run: "Run") -> None:
    """Row 31: four partitions become eight. A ticket's later records may then overtake its earlier ones."""
    run.order_of_messages = False
    run.note("partitions 4 to 8")
    await add_partitions(run.bed.connection, run.topic, 8)
    run.load.ordinary(20)
    run.publish()


async def offsets_back_to_the_beginning(run: "Run") -> None:
    """Row 32: both groups begin again; a replay of everything has no new effect."""
    async with _without_workers(run):
        run.note("offsets of both groups back to the beginning")
        ends = await ends_of(run.bed.connection, run.topic)
        await set_offsets(run.bed.connection, run.group("asker"), run.topic, dict.fromkeys(ends, 0))
        begins = run.begins[EFFECTS.name]
        await set_offsets(run.bed.connection, run.group("carrier"), EFFECTS.name, begins)


@contextlib.asynccontextmanager
async def _without_workers(run: "Run") -> AsyncIterator[None]:
    """Every worker is drained meanwhile, and as many are hired again."""
    gone = [*run.crew.of("asker"), *run.crew.of("carrier")]
    await asyncio.gather(*(run.crew.dismiss(member) for member in gone))
    try:
        yield
    finally:
        await asyncio.gather(*(run.hire(member.station.kind) for member in gone))


async def the_topic_made_anew(run: "Run") -> None:
    """Row 32, the other half: the topic is deleted and made again under running workers, and all comes once more."""
    await asyncio.gather(*run.publishing)
    if await run.until_at_rest(20) is None:
        run.note("the topic is left as it is: the system did not come to rest")
        return
    run.note("the topic deleted and made again, all its records published once more")
    records = await read_topic(run.bed.connection, run.topic)
    await run.retire(records)
    await delete_topics(run.bed.connection, [run.topic])
    await create_topic(run.bed.connection, run.topic, run.plan.partitions, max_message_bytes=str(2 << 20))
    run.sampler.blind_to.clear()
    await run.desk.again(records)
    run.load.ordinary(20)
    run.publish()


# --- the outbox -------------------------------------------------------------------------------------------


async def two_relays(run: "Run") -> None:
    """Row 34: a worker stands still between publishing and marking until another took its rows over, and comes back."""
    member = run.any_member("asker")
    run.note(f"{member.name} stands still between publishing and marking")
    member.order(Order(BEFORE_MARK, run.rng.randint(1, 5), run.rng.choice(("stop", "stop", "kill"))))
    await asyncio.sleep(run.rng.uniform(2, 4) * SESSION_S)
    member.send(signal.SIGCONT)


ROWS = (
    Row(1, killed_at_a_hook, 2),
    Row(2, terminated_with_500_in_flight, 6, lanes=600),
    Row(3, stopped_and_come_back, 6),
    Row(4, a_blocked_loop, 5),
    Row(5, a_rebalance_storm, 6),
    Row(6, revoked_and_given_back, 4, lanes=64),
    Row(7, an_idle_member_takes_over, 6, partitions=2),
    Row(8, kafka_restarted, 8),
    Row(9, kafka_killed, 7),
    Row(10, coordinator_errors, 4.5),
    Row(11, sequence_errors, 3),
    Row(12, acknowledgements_lost, 3),
    Row(13, a_silent_broker, 6),
    Row(14, bad_weather, 5),
    Row(15, postgres_restarted, 3),
    Row(16, postgres_frozen, 6),
    Row(17, commit_outcome_unknown, 4),
    Row(18, locks_and_lost_sessions, 3),
    Row(20, too_many_connections, 4),
    Row(21, redis_gone_flushed_or_slow, 3),
    Row(24, poison, 0),
    Row(25, oversized, 0),
    Row(26, published_twice, 0),
    Row(27, odd_orders, 0),
    Row(28, clocks_that_are_wrong, 3),
    Row(28, deadlines_that_pass, 0),
    Row(29, dead_letters_that_cannot_be_written, 3),
    Row(31, partitions_added, 1),
    Row(32, offsets_back_to_the_beginning, 4),
    Row(32, the_topic_made_anew, 8, takes_s=60),
    Row(34, two_relays, 9, askers=2),
)
"""All of them. Row 30 (dead letters redriven twice at once) is `python -m tests.system redriven`."""


def rows_of(numbers: str) -> Sequence[Row]:
    """The rows of these numbers, as in "1,12,24", in that order; all for "". Raises ValueError: there is none."""
    if not numbers:
        return ROWS
    found = [row for number in numbers.split(",") for row in ROWS if row.number == int(number)]
    if missing := set(map(int, numbers.split(","))) - {row.number for row in found}:
        raise ValueError(
            f"no such rows: {sorted(missing)}; row 30 is `python -m tests.system redriven`, others are not this drill's"
        )
    return found
