"""The engine when Kafka, the group or the configuration misbehave."""

import asyncio
import json
import logging
import uuid
from dataclasses import replace

import pytest

from bus.consumer import Worker, WorkerOptions
from contracts.errors import BusUnavailable, Misconfigured, StoreUnavailable
from contracts.events import Event
from contracts.topics import Topic, dead_letters_of
from state.stores import memory_stores
from tests.contract.kafka_way import way_to
from tests.contract.worker.bench import LIMIT_S, Answering, Bench, until
from tests.drill.taps import OFFSET_FETCH
from tests.services.native import Service

pytestmark = pytest.mark.kafka

_SOON_S = 10.0  # a third of what aiokafka takes by itself


async def test_a_missing_topic_ends_the_start_and_names_what_makes_it(bench: Bench) -> None:
    nowhere = Topic("worker-nowhere", bench.topic.payloads)
    with pytest.raises(Misconfigured, match=r"worker-nowhere.*`switchyard topics apply`"):
        await Worker(bench.agent, bench.stores, bench.connection, topic=nowhere).run()


async def test_a_stop_before_kafka_is_there_returns(bench: Bench) -> None:
    away = type(bench.connection)("127.0.0.1:1")
    worker = Worker(bench.agent, bench.stores, away, topic=bench.topic)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    worker.stop()
    await asyncio.wait_for(running, LIMIT_S)


async def test_a_delivery_that_outlives_its_assignment_moves_no_frontier_and_is_not_decided_twice(
    bench: Bench,
) -> None:
    """Revoked and given back to the same member while its handler runs
    (confluentinc/parallel-consumer#826, #875, #909)."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def think(event: Event) -> None:
        begun.set()
        await release.wait()

    bench.agent.meanwhile = think
    impatient = WorkerOptions(commit_interval_s=0.1, drain_timeout_s=0.2, session_timeout_s=6)
    position = await bench.submit("t1", "slow")
    async with bench.worker(options=impatient):
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        async with bench.worker(Answering(bench.agent.name, meanwhile=think), options=impatient):
            assert (await bench.committed()).get(position.partition, 0) == 0
        # the second member is gone: the first has the partition again, in a new epoch
        await bench.submit("t1", "after it")
        assert (await bench.committed()).get(position.partition, 0) == 0
        release.set()
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["slow", "after it"]
    assert len([event for event in bench.agent.seen if event.data.body == "slow"]) == 1  # type: ignore[attr-defined]


async def test_a_member_that_lost_partitions_commits_those_it_kept(bench: Bench) -> None:
    """aiokafka refuses a commit as a whole where one of its partitions is not the member's any more."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def think(event: Event) -> None:
        if len(bench.agent.seen) == len(tickets):
            begun.set()
        await release.wait()

    bench.agent.meanwhile = think
    tickets: dict[int, str] = {}  # one in every partition
    while len(tickets) < bench.topic.partitions:
        ticket = uuid.uuid4().hex
        tickets[(await bench.submit(ticket, "slow")).partition] = ticket
    impatient = WorkerOptions(commit_interval_s=0.1, drain_timeout_s=0.2, session_timeout_s=6)
    async with bench.worker(options=impatient):
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        async with bench.worker(Answering(bench.agent.name), options=impatient):

            async def the_other_has_committed_its_share() -> bool:
                return len([offset for offset in (await bench.committed()).values() if offset]) >= 2

            await until(the_other_has_committed_its_share)
            release.set()
            await until(bench.all_committed)


async def test_an_outage_of_the_store_pauses_and_dead_letters_nothing(bench: Bench) -> None:
    struck = 0

    async def fail(event: Event) -> None:
        nonlocal struck
        struck += 1
        if struck <= 3:
            raise StoreUnavailable("down")

    bench.agent.meanwhile = fail
    async with bench.worker():
        await bench.submit("t1", "x")
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["x"]


async def test_an_unwritable_dead_letter_topic_holds_the_offset_until_it_can_be_written(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    letters = dead_letters_of(bench.topic, bench.agent.name)
    assert await bench.apply(replace(letters, max_message_bytes=1000)) == ["settings changed"]
    async with bench.worker():
        poison = await bench.publisher.put(bench.topic.name, key=b"t1", value=b"poison" * 1000)
        await bench.submit("t1", "behind it")
        await bench.submit("t2", "beside it")

        async def it_was_refused_twice_while_others_go_on() -> bool:
            refused = caplog.text.count("cannot be written: the record is larger than")
            return refused >= 2 and await bench.replies("t2") == ["beside it"]

        await until(it_was_refused_twice_while_others_go_on)
        assert await bench.replies("t1") == []
        assert (await bench.committed()).get(poison.partition, 0) <= poison.offset
        assert await bench.apply(letters) == ["settings changed"]
        [letter] = await bench.dead_letters(1)
        await until(bench.all_committed)
    assert letter.value == b"poison" * 1000
    assert await bench.replies("t1") == ["behind it"]


async def test_topics_are_made_what_the_catalogue_says_and_keep_what_it_does_not_say(bench: Bench) -> None:
    found = bench.topic
    assert await bench.apply(found) == ["unchanged"]
    assert await bench.apply(replace(found, partitions=6, retention_ms=5000)) == ["partitions raised, settings changed"]
    assert await bench.apply(replace(found, partitions=4, retention_ms=5000)) == ["unchanged"]
    new = replace(found, name=f"{found.name}-new")
    assert await bench.apply(new, found) == ["created", "settings changed"]


async def test_a_topic_that_was_deleted_and_made_anew_is_read_again_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka looked for it half a minute later (its metadata_max_age); found by the drill."""
    caplog.set_level(logging.INFO, "bus.membership")
    async with bench.worker():
        await bench.submit("t1", "to the old one")
        await until(bench.all_committed)
        await bench.delete(bench.topic.name)

        async def the_worker_has_noticed() -> bool:
            return "partitions assigned: []" in caplog.text

        await until(the_worker_has_noticed)
        assert await bench.apply(bench.topic) == ["created"]
        await bench.submit("t2", "to the new one")
        async with asyncio.timeout(_SOON_S):
            await until(bench.all_committed)
    assert await bench.replies("t2") == ["to the new one"]


async def test_a_topic_made_anew_behind_a_workers_back_loses_nothing(bench: Bench, kafka_bootstrap: str) -> None:
    """aiokafka knows topics by name: it reads on in the new one where it was in the old one, beyond what is there."""
    async with way_to(kafka_bootstrap) as way, replace(bench, connection=way.connection).worker():
        for number in range(5):
            await bench.submit("t1", f"old {number}")
        await until(bench.all_committed)
        way.proxy.weather.silent = True
        await bench.delete(bench.topic.name)
        assert await bench.apply(bench.topic) == ["created"]
        for number in range(8):
            await bench.submit("t1", f"new {number}")
        way.proxy.reset()
        way.proxy.clear()

        async def the_new_ones_are_answered() -> bool:
            return sorted(await bench.replies("t1"))[:8] == [f"new {number}" for number in range(8)]

        await until(the_new_ones_are_answered)
        await until(bench.all_committed)
    assert len(await bench.replies("t1")) == 13


@pytest.mark.parametrize("error", [14, 15, 16], ids=["loading", "not-available", "another-broker-is"])
async def test_a_coordinator_that_cannot_tell_offsets_is_not_taken_for_one_that_has_none(
    bench: Bench, kafka_bootstrap: str, error: int
) -> None:
    """aiokafka looks at the offsets of an answer alone, and would read the whole topic again."""
    async with bench.worker():
        for number in range(3):
            await bench.submit("t1", f"old {number}")
        await until(bench.all_committed)
    async with way_to(kafka_bootstrap) as way:
        way.meddle(OFFSET_FETCH, error, times=8)  # more than one for each partition
        forgetful = replace(bench, connection=way.connection, stores=memory_stores())  # it would take them for new
        async with forgetful.worker():
            await bench.submit("t1", "new")
            await until(bench.all_committed)
        assert way.mischief.done == 8
    assert await forgetful.replies("t1") == ["new"]


async def test_a_restart_of_kafka_is_lived_through(bench: Bench, kafka_server: Service) -> None:
    """A consumer stays stuck after its broker came back, and a producer is of no use (aiokafka#1154, #703, #1017)."""
    async with bench.worker():
        await bench.submit("t1", "before")
        await until(bench.all_committed)
        await asyncio.to_thread(kafka_server.stop)
        await asyncio.to_thread(kafka_server.start)

        async def submitted() -> bool:
            try:
                await bench.submit("t1", "after")
            except BusUnavailable:
                return False
            return True

        await until(submitted)
        await until(bench.all_committed)
    assert await bench.replies("t1") == ["before", "after"]


async def test_a_killed_kafka_is_lived_through_with_tickets_in_flight(bench: Bench, kafka_server: Service) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def think(event: Event) -> None:
        begun.set()
        await release.wait()

    bench.agent.meanwhile = think
    async with bench.worker():
        for number in range(20):
            await bench.submit(f"t{number}", json.dumps(number))
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        await asyncio.to_thread(kafka_server.kill)
        release.set()
        await asyncio.to_thread(kafka_server.start)
        await until(bench.all_committed)
    for number in range(20):
        assert await bench.replies(f"t{number}") == [json.dumps(number)]
