"""B14: how long from the start of a process to the first record it has handled."""

import asyncio
import contextlib
import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.cluster import Backlog
from benchmarks.database import Databases, number
from benchmarks.driver import interleaved
from benchmarks.result import Result, arm, at_most, machine, ratios, value_of
from bus.codec import encode
from bus.connection import KafkaConnection
from bus.publisher import Publisher
from contracts.events import Event, LookupRequested, TicketSubmitted
from contracts.ports import Position, Settlement
from contracts.ticket import Desk, Ticket
from contracts.topics import LOOKUP, TICKETS
from contracts.values import Label
from state.pool import open_pool
from state.stores import postgres_stores

ARMS = ("raw", "naive_keyed", "switchyard", "faststream_ack", "faust_agent")
OURS = "switchyard run lookup"
_WITHIN_S = 30.0


async def b14(bench: Bench, databases: Databases) -> Result:
    """Start processes beside a topic that holds records already."""
    backlog = await bench.cluster.backlog("bench.b14", tickets=100, records=100)
    started: dict[str, Callable[[], Awaitable[float]]] = {
        name: functools.partial(_started, bench, name, backlog) for name in bench.chosen(ARMS)
    }
    if not bench.only or "switchyard_run" in bench.only:
        started[OURS] = lambda: _worker_started(bench, databases)
    slices = await interleaved(started, bench.slices, bench.told)
    arms = {name: arm([one.found for one in of_arm], "s") for name, of_arm in slices.items()}
    return Result(
        "B14",
        "process start to the first record handled",
        arms,
        ratios(arms, [(OURS, other) for other in ARMS]),
        [
            at_most("switchyard run <= .8 s", value_of(arms.get(OURS)), 0.8),
            at_most("the engine alone <= .8 s", value_of(arms.get("switchyard")), 0.8),
        ],
        machine(slices),
    )


async def _started(bench: Bench, name: str, backlog: Backlog) -> float:
    job = bench.job(name, backlog, warmup_s=0.0, window_s=0.05)
    began = time.monotonic()
    return (await driver.run(job)).first_at - began


async def _worker_started(bench: Bench, databases: Databases) -> float:
    """From the start of `switchyard run lookup` until it has stored the answer to a handoff that waits."""
    async with databases.fresh() as dsn:
        await bench.cluster.skip_to_end("lookup", LOOKUP.name)
        await _hand_to_lookup(KafkaConnection(bench.cluster.bootstrap), dsn)
        environment = {
            **os.environ,
            "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": bench.cluster.bootstrap,
            "SWITCHYARD_POSTGRES__DSN": dsn,
        }
        began = time.monotonic()
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "run", "lookup"),
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await _until_stored(dsn)
            return time.monotonic() - began
        finally:
            worker.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.wait(), _WITHIN_S)


async def _hand_to_lookup(kafka: KafkaConnection, dsn: str) -> None:
    """Store a ticket as triage would that hands it to lookup, and publish the handoff."""
    said = TicketSubmitted(ticket_id="t-start", from_email="ann@example.com", body="Where is my order?")
    event = Event(id="said", source="urn:benchmark", time=datetime.now(UTC), data=said)
    opened = Ticket(ticket_id="t-start", tenant_id="default").open_round(event)
    round_ = opened.rounds[0].model_copy(update={"label": Label.ORDER_STATUS, "desk": Desk.LOOKUP})
    handoff = encode(
        LookupRequested(ticket_id="t-start", round=1),
        cause=event,
        event_id="handoff",
        time=event.time,
        source="urn:benchmark",
        deadline=None,
        traceparent=None,
    )
    async with open_pool(dsn) as pool, Publisher(kafka) as publisher:
        settlement = Settlement("triage", event, Position(TICKETS.name, 0, 0), opened.with_round(round_))
        await postgres_stores(pool).tickets.settle([settlement], "benchmark")
        await publisher.publish([handoff])


async def _until_stored(dsn: str) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not await number(dsn, "SELECT count(*) FROM inbox WHERE group_name = 'lookup'"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
