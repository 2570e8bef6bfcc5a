"""The engine on a real Kafka, with tickets in memory."""

import asyncio
import json
import time
import uuid
from collections import defaultdict

import pytest
from aiokafka import ConsumerRecord

from bus.consumer import WorkerOptions
from bus.intake import Intake
from contracts.errors import ModelUnavailable
from contracts.events import CustomerReplied, Event
from contracts.ports import Position, Settlement
from contracts.topics import OUTCOMES
from contracts.values import Disposition
from tests.contract.worker.bench import LIMIT_S, Answering, Bench, until

pytestmark = pytest.mark.kafka


async def test_a_ticket_in_order_and_many_tickets_at_once(bench: Bench) -> None:
    now, at_once, most, order = 0, defaultdict(int), 0, defaultdict(list)

    async def think(event: Event) -> None:
        nonlocal now, most
        ticket, now = event.ticket_id, now + 1
        at_once[ticket] += 1
        assert at_once[ticket] == 1, "one at a time within a ticket"
        most = max(most, now)
        await asyncio.sleep(0.1)
        order[ticket].append(event.data.body)  # type: ignore[attr-defined]
        at_once[ticket] -= 1
        now -= 1

    bench.agent.meanwhile = think
    for number in range(4):
        for ticket in range(20):
            await bench.submit(f"t{ticket}", f"message {number}")
    async with bench.worker():
        await until(bench.all_committed)
    assert set(order) == {f"t{ticket}" for ticket in range(20)}
    assert all(said == [f"message {number}" for number in range(4)] for said in order.values())
    assert most >= 15


async def test_a_slow_ticket_delays_nobody_and_holds_only_the_commit(bench: Bench) -> None:
    release = asyncio.Event()

    async def think(event: Event) -> None:
        if event.ticket_id == "slow":
            await release.wait()

    bench.agent.meanwhile = think
    slow = await bench.submit("slow", "first")
    async with bench.worker():
        for number in range(50):
            await bench.submit(f"t{number}", "after it")

        async def all_others_are_answered() -> bool:
            return all([await bench.replies(f"t{number}") for number in range(50)])

        await until(all_others_are_answered)
        assert (await bench.committed()).get(slow.partition, 0) <= slow.offset
        release.set()
        await until(bench.all_committed)


async def test_what_is_emitted_is_on_its_topic_and_marked_as_published(bench: Bench) -> None:
    ticket = uuid.uuid4().hex
    async with bench.worker():
        await bench.submit(ticket, "hello")
        await until(bench.all_committed)
    rows = [entry.detail for entry in await bench.store.timeline(ticket) if entry.what == "emitted"]
    [outcome] = await bench.read(OUTCOMES.name, 1, ce_source=f"urn:switchyard:agent:{bench.agent.name}".encode())
    assert (outcome.key, json.loads(outcome.value)["reply"]) == (ticket.encode(), "hello")
    assert len(rows) == 1
    assert await bench.stores.outbox.take_over("another", limit=10) == []


async def test_a_record_that_comes_again_is_settled_once(bench: Bench) -> None:
    async with bench.worker():
        for _ in range(3):
            await bench.submit("t1", "the same")
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["the same"]
    assert len(bench.agent.seen) == 1


async def test_a_null_key_is_welcome(bench: Bench) -> None:
    """Records without a key stopped their partition (confluentinc/parallel-consumer#318)."""
    async with bench.worker():
        await bench.publisher.put(bench.topic.name, key=None, value=b'{"ticket_id":"t1","body":"hi"}')
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["hi"]


async def test_a_step_whose_ticket_moved_on_is_decided_again_on_fresh_state(bench: Bench) -> None:
    async def interfere(event: Event) -> None:
        if len(bench.agent.seen) == 1:
            ticket = await bench.store.load("t1")
            assert ticket is not None
            other = Event("other", "s", event.time, CustomerReplied(ticket_id="t1", body="meanwhile"))
            settlement = Settlement("another", other, Position("x", 0, 0), ticket.open_round(other))
            await bench.store.settle([settlement], "another")

    async with bench.worker():
        await bench.submit("t1", "first")
        await until(bench.all_committed)
        bench.agent.seen.clear()
        bench.agent.meanwhile = interfere
        await bench.submit("t1", "second")
        await until(bench.all_committed)
    assert len(bench.agent.seen) == 2
    ticket = await bench.store.load("t1")
    assert ticket is not None
    assert [round_.body for round_ in ticket.rounds] == ["first", "meanwhile", "second"]


POISON: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (b"k", b"\xff\xfe not text", []),
    (b"k", b"[1, 2]", [("mine", b"\x00\xff"), ("mine", b"again"), ("null", None)]),
    (b"k", b'{"ticket_id":"k"}', [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]),
    (b"k", b"[" * 10_000 + b"]" * 10_000, []),
    (b"\xff", b'{"ticket_id":"k","body":"x"}', []),
    (b"k", b'{"ticket_id":"k","body":"x"}', [("ce_type", b"Nonsense")]),
    (b"k", b'{"ticket_id":"k","body":"x"}', [("ce_dataschema", b"urn:switchyard:TicketSubmitted:99")]),
    (b"k", b'{"ticket_id":"k","round":1}', [("ce_type", b"LookupRequested"), ("ce_id", b"1")]),
    (b"k", None, []),
    (None, None, [("empty", b"")]),
    (b"k", b"x" * 2_000_000, []),
    (b"k", b"{", [(f"h{number}", b"v" * 100) for number in range(1000)]),
]


async def test_poison_is_dead_lettered_byte_for_byte_and_the_partition_moves_on(bench: Bench) -> None:
    async with bench.worker():
        sent = [await bench.publisher.put(bench.topic.name, key=k, value=v, headers=h) for k, v, h in POISON]
        for ticket in range(8):
            await bench.submit(f"t{ticket}", "after the poison")
        await until(bench.all_committed)
    for ticket in range(8):
        assert await bench.replies(f"t{ticket}") == ["after the poison"]
    letters = {_origin(letter): letter for letter in await bench.dead_letters(len(POISON))}
    assert len(letters) == len(POISON)
    for position, (key, value, headers) in zip(sent, POISON, strict=True):
        letter = letters[position.partition, position.offset]
        assert (letter.key, letter.value) == (key, value)
        assert list(letter.headers[: len(headers)]) == headers
        said = dict(letter.headers[len(headers) :])
        assert said["kafka_dlt-original-topic"] == bench.topic.name.encode()
        assert said["kafka_dlt-original-consumer-group"] == bench.agent.name.encode()
        assert said["kafka_dlt-original-timestamp-type"] == b"CreateTime"
        assert int(said["kafka_dlt-original-timestamp"]) > 10**12
        assert said["kafka_dlt-exception-fqcn"].startswith(b"contracts.errors.")
        assert said["kafka_dlt-exception-message"]
        if "traceparent" in dict(headers):
            assert said["kafka_dlt-trace-id"] == b"0af7651916cd43dd8448eb211c80319c"


async def test_a_header_name_that_is_not_utf8_does_not_stop_its_partition(bench: Bench) -> None:
    for ticket in range(12):
        await bench.submit(f"t{ticket}", "before it")
    async with bench.worker():
        await until(bench.all_committed)
        async with bench.odd_producer() as send:
            await send(partition=0, key=b"k", value=b'{"ticket_id":"k","body":"x"}', odd_name=b"\xff\xfe")
            await send(partition=0, key=b"k", value=b'{"ticket_id":"k","body":"x"}', odd_name=b"a\x80")
            await send(partition=2, key=None, value=b"also not JSON", odd_name=b"\xff")
        for ticket in range(12):
            await bench.submit(f"t{ticket}", "after it")
        await until(bench.all_committed)
    for ticket in range(12):
        assert await bench.replies(f"t{ticket}") == ["before it", "after it"]
    letters = await bench.dead_letters(3)
    assert sorted(letter.value for letter in letters) == [
        b"also not JSON",
        b'{"ticket_id":"k","body":"x"}',
        b'{"ticket_id":"k","body":"x"}',
    ]
    assert {letter.headers[0] for letter in letters} == {("\\xff\\xfe", b"v"), ("a\\x80", b"v"), ("\\xff", b"v")}
    assert await bench.replies("k") == []


def _origin(letter: ConsumerRecord[bytes, bytes]) -> tuple[int, int]:
    headers = dict(letter.headers)
    return int(headers["kafka_dlt-original-partition"]), int(headers["kafka_dlt-original-offset"])


async def test_a_dead_letter_tells_the_tries_and_never_what_a_bug_quotes(bench: Bench) -> None:
    async def fail(event: Event) -> None:
        if event.ticket_id == "unlucky":
            raise ModelUnavailable("the provider answers 503")
        raise KeyError("my secret words")

    bench.agent.meanwhile = fail
    async with bench.worker():
        await bench.submit("unlucky", "x")
        await bench.submit("buggy", "x")
        await until(bench.all_committed)
    letters = {letter.key: dict(letter.headers) for letter in await bench.dead_letters(2)}
    unlucky, buggy = letters[b"unlucky"], letters[b"buggy"]
    assert unlucky["kafka_dlt-attempts"] == b"2"
    assert unlucky["kafka_dlt-exception-fqcn"] == b"contracts.errors.ModelUnavailable"
    assert unlucky["kafka_dlt-exception-message"] == b"the provider answers 503"
    assert buggy["kafka_dlt-attempts"] == b"1"
    assert buggy["kafka_dlt-exception-fqcn"] == b"builtins.KeyError"
    assert b"secret" not in b"".join(v or b"" for v in buggy.values())


async def test_a_passed_deadline_is_an_outcome(bench: Bench) -> None:
    async with bench.worker():
        value = json.dumps({"ticket_id": "late", "body": "x", "deadline": "2020-01-01T00:00:00Z"}).encode()
        await bench.publisher.put(bench.topic.name, key=b"late", value=value)
        await until(bench.all_committed)
    ticket = await bench.store.load("late")
    assert ticket is not None
    assert ticket.rounds[0].disposition is Disposition.TIMED_OUT
    assert not bench.agent.seen


async def test_a_new_worker_resumes_behind_what_was_committed(bench: Bench) -> None:
    async with bench.worker():
        for number in range(10):
            await bench.submit(f"t{number}", "one")
        await until(bench.all_committed)
    await bench.submit("t0", "two")
    again = Answering(bench.agent.name)
    async with bench.worker(again):
        await until(bench.all_committed)
    assert [event.ticket_id for event in again.seen] == ["t0"]
    assert await bench.replies("t0") == ["one", "two"]


async def test_two_workers_share_the_partitions_and_settle_each_record_once(bench: Bench) -> None:
    """A scale-out was rebalanced without end (confluentinc/parallel-consumer#637)."""

    async def think(event: Event) -> None:
        await asyncio.sleep(0.02)

    one, two = (Answering(bench.agent.name, meanwhile=think) for _ in range(2))
    async with bench.worker(one):
        for number in range(100):
            await bench.submit(f"t{number}", "before")
        async with bench.worker(two):
            for number in range(100):
                await bench.submit(f"t{number}", "after")
            await until(bench.all_committed)
    assert one.seen
    assert two.seen
    for number in range(100):
        assert await bench.replies(f"t{number}") == ["before", "after"]


async def test_stop_finishes_what_is_in_flight_commits_it_and_leaves_the_rest(bench: Bench) -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def think(event: Event) -> None:
        begun.set()
        await release.wait()

    bench.agent.meanwhile = think
    for number in range(3):
        await bench.submit("t1", f"message {number}")
    async with bench.worker() as worker:
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        worker.stop()
        asyncio.get_running_loop().call_later(0.5, release.set)
    assert await bench.replies("t1") == ["message 0"]
    assert list((await bench.committed()).values()) == [1]


async def test_stop_gives_up_on_what_takes_too_long_and_commits_nothing_of_it(bench: Bench) -> None:
    begun = asyncio.Event()

    async def think(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    bench.agent.meanwhile = think
    await bench.submit("t1", "x")
    async with bench.worker(options=WorkerOptions(drain_timeout_s=0.2)):
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert set((await bench.committed()).values()) <= {0}
    bench.agent.meanwhile = None
    async with bench.worker():
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["x"]


async def test_a_backlog_far_above_the_intake_is_worked_off(bench: Bench) -> None:
    async def think(event: Event) -> None:
        await asyncio.sleep(0.001)

    async def submit_all(ticket: int) -> None:
        for number in range(30):
            await bench.submit(f"t{ticket}", f"message {number}" + "." * (20_000 if number == 7 else 0))

    bench.agent.meanwhile = think
    small = WorkerOptions(commit_interval_s=0.1, intake=Intake(high_records=20, high_bytes=100_000))
    await asyncio.gather(*(submit_all(ticket) for ticket in range(40)))
    async with bench.worker(options=small):
        await until(bench.all_committed)
    assert len(bench.agent.seen) == 1200
    for ticket in range(40):
        said = [reply.rstrip(".") for reply in await bench.replies(f"t{ticket}")]
        assert said == [f"message {number}" for number in range(30)]
