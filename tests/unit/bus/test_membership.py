"""The engine as a member of a group that misbehaves; `Group` stands for Kafka and aiokafka's consumers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError, GroupAuthorizationFailedError, KafkaError

from bus import closing, identity, membership
from bus.committing import Committer
from bus.connection import KafkaConnection
from bus.delivery import Delivery
from bus.engine import Engine
from bus.frontier import Frontiers
from bus.intake import Intake
from bus.options import WorkerOptions
from bus.outcome import DONE, Outcome
from contracts.errors import EngineStuck
from tests.unit.bus.group import Group
from tests.unit.bus.kit import record, until

LIMIT_S = 30.0


@dataclass
class Handling:
    """A handler that is done at once, except with those keys that it is to wait with."""

    waits_with: set[bytes | None] = field(default_factory=set)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[tuple[int, int]] = field(default_factory=list)  # partition and offset
    ended: list[tuple[int, int]] = field(default_factory=list)

    async def __call__(self, delivery: Delivery) -> Outcome:
        place = delivery.record.partition, delivery.record.offset
        self.begun.append(place)
        if delivery.record.key in self.waits_with:
            await self.release.wait()
        self.ended.append(place)
        return DONE


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    group = Group()
    monkeypatch.setattr(membership, "AIOKafkaConsumer", lambda **settings: group(**settings))
    return group


@pytest.fixture
def handling() -> Handling:
    return Handling()


@contextlib.asynccontextmanager
async def running(group: Group, handling: Handling, **changed: Any) -> AsyncIterator[Engine]:
    """An engine that was assigned its partitions; it is stopped at the end, which must not take long."""
    options = replace(WorkerOptions(commit_interval_s=0.01, drain_timeout_s=0.1), **changed)
    engine = Engine(handling, KafkaConnection("nowhere:1"), topic="t", group="g", options=options)
    task = asyncio.create_task(engine.run())
    await until(lambda: bool(group.clients) and group.client.polls > 0)
    try:
        yield engine
    finally:
        engine.stop()
        await asyncio.wait_for(task, LIMIT_S)


async def polled_again(group: Group, times: int = 3) -> None:
    seen = group.client.polls
    await until(lambda: group.client.polls >= seen + times)


# --- polling ----------------------------------------------------------------------------------------------


async def test_a_member_without_partitions_polls_on(group: Group, handling: Handling) -> None:
    """Idle for longer than max_poll_interval, it never joins again (aiokafka#1187)."""
    group.partitions = set()
    async with running(group, handling):
        await polled_again(group)


async def test_a_member_whose_partitions_are_all_paused_polls_on(group: Group, handling: Handling) -> None:
    """Idle for longer than max_poll_interval, it never joins again (aiokafka#1187)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling, intake=Intake(high_records=2)):
        group.client.bring(*[b"slow"] * 5)
        await until(lambda: bool(group.client.paused()))
        await polled_again(group)
        handling.release.set()
        await until(lambda: not group.client.paused())
        group.client.bring(b"later")
        await until(lambda: len(handling.ended) == 6)


async def test_a_handler_that_never_ends_holds_up_no_poll(group: Group, handling: Handling) -> None:
    """A slow handler between two polls leaves the group, and its commit fails for ever (aiokafka#848, #727)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling):
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        await polled_again(group)
        group.client.bring(b"quick")
        await until(lambda: handling.ended == [(0, 1)])


async def test_while_it_drains_it_polls_on_and_takes_nothing_more(group: Group, handling: Handling) -> None:
    """A draining consumer that no longer polls is a zombie which blocks its group (astubbs/parallel-consumer#80)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling, drain_timeout_s=LIMIT_S) as engine:
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        engine.stop()
        await polled_again(group)
        group.client.bring(b"late")
        await polled_again(group)
        assert handling.begun == [(0, 0)]
        handling.release.set()
        await until(lambda: group.client.stopped)
    assert group.committed[-1] == {0: 1}


async def test_records_without_a_key_wait_for_nobody(group: Group, handling: Handling) -> None:
    """Null keys broke the sharding by key (confluentinc/parallel-consumer#318)."""
    handling.waits_with = {None}
    async with running(group, handling):
        group.client.bring(None, None, None)
        await until(lambda: len(handling.begun) == 3)
        handling.release.set()
        await until(lambda: group.committed[-1:] == [{0: 3}])


async def test_what_runs_counts_as_in_hand_and_stops_the_intake(group: Group, handling: Handling) -> None:
    """Work in flight did not count, and memory had no bound (confluentinc/parallel-consumer#832, #834, #836)."""
    handling.waits_with = {None}
    async with running(group, handling, intake=Intake(high_records=3)) as engine:
        for number in range(4):
            group.client.bring(None)
            await until(lambda at_least=number: len(handling.begun) > at_least)  # type: ignore[misc]
        assert not engine.lanes.ready, "all run, none waits"
        await until(lambda: bool(group.client.paused()))
        group.client.bring(*[None] * 4)
        await polled_again(group)
        assert len(handling.begun) == 4


# --- what ops may ask for ---------------------------------------------------------------------------------


async def test_paused_it_starts_and_fetches_nothing_finishes_what_runs_and_stays_a_member(
    group: Group, handling: Handling
) -> None:
    handling.waits_with = {b"slow"}
    async with running(group, handling) as engine:
        group.client.bring(b"slow", b"slow")  # the second one is fetched, and waits in its lane
        await until(lambda: bool(handling.begun))
        engine.pause()
        group.client.bring(b"waits", b"waits too")
        await until(lambda: group.client.paused() == group.client.assignment())
        handling.release.set()
        await until(lambda: group.committed[-1:] == [{0: 1}])
        await polled_again(group)
        assert handling.ended == [(0, 0)]
        engine.resume()
        await until(lambda: group.committed[-1:] == [{0: 4}])
    assert len(group.clients) == 1


async def test_a_pause_before_it_joins_holds_up_the_first_record(group: Group, handling: Handling) -> None:
    engine = Engine(handling, KafkaConnection("nowhere:1"), topic="t", group="g")
    engine.pause()
    task = asyncio.create_task(engine.run())
    await until(lambda: bool(group.clients) and group.client.polls > 0)
    group.client.bring(b"a")
    await polled_again(group)
    assert handling.begun == []
    engine.stop()
    await asyncio.wait_for(task, LIMIT_S)


async def test_told_to_leave_it_finishes_commits_and_stays_out_until_it_may_join(
    group: Group, handling: Handling
) -> None:
    handling.waits_with = {b"slow"}
    async with running(group, handling, drain_timeout_s=LIMIT_S) as engine:
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        engine.leave()
        await polled_again(group)
        assert not engine.is_out, "what runs is not finished"
        handling.release.set()
        await until(lambda: engine.is_out)
        assert group.client.stopped
        assert group.committed[-1] == {0: 1}
        assert len(group.clients) == 1
        engine.join()
        await until(lambda: len(group.clients) == 2 and group.client.polls > 0)
        group.client.bring(b"next")
        await until(lambda: len(handling.ended) == 2)


async def test_one_that_is_to_stay_out_joins_no_group_and_has_started_all_the_same(
    group: Group, handling: Handling
) -> None:
    engine = Engine(handling, KafkaConnection("nowhere:1"), topic="t", group="g")
    engine.leave()
    task = asyncio.create_task(engine.run())
    await asyncio.wait_for(engine.started.wait(), LIMIT_S)
    assert group.clients == []
    engine.stop()
    await asyncio.wait_for(task, LIMIT_S)


async def test_called_back_while_it_leaves_it_leaves_and_joins_again(group: Group, handling: Handling) -> None:
    async with running(group, handling) as engine:
        engine.leave()
        await asyncio.sleep(0)  # its wait for that is over, and nothing has looked yet
        engine.join()
        await until(lambda: len(group.clients) == 2 and group.client.polls > 0)
        group.client.bring(b"a")
        await until(lambda: bool(handling.ended))


# --- commits ----------------------------------------------------------------------------------------------


async def test_a_commit_refused_in_a_rebalance_ends_nothing_and_is_made_again(group: Group, handling: Handling) -> None:
    """It ended the poll thread for good; or was noted as done (astubbs/parallel-consumer#100, #108)."""
    group.refusals.extend([CommitFailedError("a rebalance is in progress"), KafkaError("unknown member")])
    async with running(group, handling):
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 1}])
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 1}, {0: 2}])
    assert len(group.clients) == 1


async def test_a_commit_refused_after_the_group_was_left_is_no_success() -> None:
    """Rejected, it was recorded as committed (astubbs/parallel-consumer#108)."""
    group, frontiers = Group(), with_one_settled()
    client = group()
    client.subscribe(["t"], listener=None)
    client._assign(set())
    await Committer("t", frontiers).commit(client)
    assert [due.offset for due in frontiers.committable()] == [4]


async def test_a_commit_without_an_answer_is_no_success_and_holds_up_no_other() -> None:
    """The revocation waited for the commit, and the commit for the revocation (confluentinc/parallel-consumer#857,
    astubbs/parallel-consumer#29, #119)."""
    group, frontiers = Group(), with_one_settled()
    client = group()
    client.subscribe(["t"], listener=None)
    committer = Committer("t", frontiers, timeout_s=0.05)
    group.answering.clear()
    began = time.monotonic()
    cadence = asyncio.create_task(committer.commit(client))
    await until(lambda: group.at_once == 1)
    async with asyncio.timeout(LIMIT_S):
        await committer.commit(client)
        await cadence
    assert time.monotonic() - began < 1
    assert [due.offset for due in frontiers.committable()] == [4]


def with_one_settled() -> Frontiers:
    frontiers = Frontiers()
    assignment = frontiers.of(0, 3)
    assignment.settled(assignment.begin(3))
    return frontiers


async def test_no_commit_of_an_epoch_is_on_its_way_when_the_epoch_ends(group: Group, handling: Handling) -> None:
    """aiokafka stamps a commit with the generation of the moment, not with that in which it was asked for."""
    async with running(group, handling):
        group.answering.clear()
        group.client.bring(b"a")
        await until(lambda: group.at_once == 1)
        rebalance = asyncio.create_task(group.client.rebalance({0}))
        for _ in range(20):
            await asyncio.sleep(0)
        assert group.at_once == 1
        assert not rebalance.done()
        group.answering.set()
        await asyncio.wait_for(rebalance, LIMIT_S)
    assert group.most_at_once == 1


async def test_a_partition_that_stays_idle_through_rebalances_is_never_committed(
    group: Group, handling: Handling
) -> None:
    """A wrong offset was committed, and its group began at auto.offset.reset (confluentinc/parallel-consumer#894)."""
    async with running(group, handling):
        for number in range(6):
            await group.client.rebalance({0} if number % 2 else {0, 1})
            await polled_again(group)
        assert group.committed == []
        group.client._next[0] = 7
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 8}])
        for number in range(6):
            await group.client.rebalance({0} if number % 2 else {0, 1})
            await polled_again(group)
    assert group.committed == [{0: 8}]


# --- rebalances -------------------------------------------------------------------------------------------


async def test_what_is_let_go_waits_for_no_poll_and_what_runs_on_moves_no_frontier(
    group: Group, handling: Handling
) -> None:
    """aiokafka's polls stand still until the listener has returned, whatever their timeout is. What ended in the
    next epoch was taken for that one's (confluentinc/parallel-consumer#875, #909, astubbs/parallel-consumer#183)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling):
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        async with asyncio.timeout(LIMIT_S):
            await group.client.rebalance({0})
        group.client._next[0] = 0
        group.client.bring(b"slow", b"quick")
        await until(lambda: handling.ended == [(0, 1)])
        assert group.furthest() == 0
        handling.waits_with = set()
        handling.release.set()
        await until(lambda: group.committed[-1:] == [{0: 2}])
    assert handling.begun == [(0, 0), (0, 1), (0, 0)], "the fresh record is handled, after the stale one"


async def test_a_partition_that_comes_back_goes_on_where_others_left_it(group: Group, handling: Handling) -> None:
    """A stale entry outlived the assignment, and consumption stalled (confluentinc/parallel-consumer#875, #909,
    astubbs/parallel-consumer#183)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling):
        group.client.bring(b"slow", b"quick")
        await until(lambda: handling.ended == [(0, 1)])
        await group.client.rebalance(set())
        await group.client.rebalance({0})
        group.client._next[0] = 6
        group.client.bring(b"quick")
        await until(lambda: group.committed[-1:] == [{0: 7}])
        handling.release.set()
        await until(lambda: (0, 0) in handling.ended)
        await polled_again(group, times=20)
    assert group.committed[-1] == {0: 7}


async def test_letting_go_takes_far_less_than_a_rebalance_may(group: Group, handling: Handling) -> None:
    """Longer than rebalance_timeout_ms, which aiokafka sets to the session's, it is an eviction, and the next
    rebalance follows: without end on a scale-out (confluentinc/parallel-consumer#637)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling):
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        began = time.monotonic()
        async with asyncio.timeout(LIMIT_S):
            await group.client.rebalance(set())
        assert time.monotonic() - began < 1
        commits_s = 2 * Committer("t", Frontiers())._timeout_s
        longest_s = membership._LONGEST_DRAIN_AT_REVOKE_S + commits_s
        assert group.client.settings["rebalance_timeout_ms"] / 1000 >= 1.5 * longest_s


async def test_a_patient_drain_is_cut_short_where_a_group_waits(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a stop may take, a revocation must end before the group gives the member up (aiokafka's code)."""
    monkeypatch.setattr(membership, "_LONGEST_DRAIN_AT_REVOKE_S", 0.05)
    handling.waits_with = {b"slow"}
    async with running(group, handling) as engine:
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        patient = membership.Membership(
            group.client,
            "t",
            engine,
            WorkerOptions(drain_timeout_s=600),
            engine._watchdog,
            engine._identity,
        )
        async with asyncio.timeout(LIMIT_S):
            await patient.let_go_of([0])


async def test_it_stops_in_a_rebalance_that_never_ends(group: Group, handling: Handling) -> None:
    """It could not be closed in a storm of rebalances (confluentinc/parallel-consumer#787)."""
    async with running(group, handling) as engine:
        group.client.begin_rebalance()
        engine.stop()
        await until(lambda: group.client.stopped)


# --- clients that break -----------------------------------------------------------------------------------


async def test_an_error_that_ended_the_coordination_makes_a_new_client(group: Group, handling: Handling) -> None:
    """The task that keeps the membership dies and says so to the next poll alone (aiokafka#376, #1186)."""
    async with running(group, handling):
        first = group.client
        first.fails = GroupAuthorizationFailedError("g")
        await until(lambda: len(group.clients) == 2 and first.stopped)
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 1}])


async def test_a_poll_that_waits_for_a_rebalance_without_end_makes_a_new_client(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll ignores its timeout while partitions are dealt out (aiokafka's code), and that can go on for ever
    (aiokafka#703, #1154)."""
    monkeypatch.setattr(membership, "_LONGEST_POLL_S", 0.05)
    async with running(group, handling):
        group.client.begin_rebalance()
        await until(lambda: len(group.clients) == 2)
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 1}])


async def test_what_runs_while_a_client_is_replaced_moves_no_frontier_of_the_next(
    group: Group, handling: Handling
) -> None:
    """A commit has the new member's generation whatever it speaks of (aiokafka's code)."""
    handling.waits_with = {b"slow"}
    async with running(group, handling):
        group.client.bring(b"slow", b"behind")
        await until(lambda: (0, 1) in handling.ended)
        group.client.fails = KafkaError("unexpected")
        await until(lambda: len(group.clients) == 2 and group.client.polls > 0)
        handling.release.set()
        await until(lambda: (0, 0) in handling.ended)
        await polled_again(group, times=20)
    assert group.furthest() == 0


async def test_a_client_that_goes_quiet_is_replaced_and_the_third_one_ends_the_worker(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer gets stuck after a restart of its broker, and nothing tells (aiokafka#1154, #703, #625)."""
    monkeypatch.setattr(membership, "_WATCH_EVERY_S", 0.0)
    options = WorkerOptions(stalled_after_s=0.05)
    engine = Engine(handling, KafkaConnection("nowhere:1"), topic="t", group="g", options=options)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(engine.run(), LIMIT_S)
    assert caught.group_contains(EngineStuck)
    assert len(group.clients) == 3
    assert all(client.stopped for client in group.clients)


@pytest.mark.parametrize("task", ["_fetch_task", "_coordination_task"])
async def test_a_client_whose_own_task_ended_is_replaced_at_once(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """aiokafka's fetching ends for good by what it did not expect, and a poll just brings nothing (aiokafka#376)."""
    monkeypatch.setattr(membership, "_WATCH_EVERY_S", 0.0)

    async def met_the_unexpected() -> None:
        raise RuntimeError("the handler is closed")

    async with running(group, handling):
        ended = asyncio.create_task(met_the_unexpected())
        await asyncio.wait({ended})
        assert ended.exception()
        setattr(group.client, task, ended)
        await until(lambda: len(group.clients) == 2)
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 1}])


@pytest.mark.parametrize("leader", [-1, None])
async def test_a_partition_without_a_leader_is_not_held_against_the_client(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch, leader: int | None
) -> None:
    """Else its worker would make new clients and end, over and over, and its other partitions with it."""
    monkeypatch.setattr(membership, "_WATCH_EVERY_S", 0.0)
    async with running(group, handling, stalled_after_s=0.05):
        group.client.leader = leader
        end = time.monotonic() + 0.2
        await until(lambda: time.monotonic() > end)
        assert len(group.clients) == 1


async def test_a_topic_that_is_gone_is_looked_for_until_it_is_there_again(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka asks for it at metadata_max_age and no sooner, while nobody reads what comes in (aiokafka's code)."""
    monkeypatch.setattr(membership, "_WATCH_EVERY_S", 0.0)
    async with running(group, handling):
        await polled_again(group)
        assert group.client.updates == 0, "metadata are not asked for without need"
        group.client.topic_is_there = False
        await group.client.rebalance(set())
        await until(lambda: group.client.updates >= 2)
        group.client.topic_is_there = True
        await polled_again(group)
        seen = group.client.updates
        await polled_again(group)
        assert group.client.updates == seen
        assert len(group.clients) == 1


async def test_a_topic_made_anew_is_read_from_its_beginning(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka knows topics by name: it read on where it had been in the one that was deleted, and what the new one
    has below was lost; what was committed meanwhile counted for good."""
    monkeypatch.setattr(identity, "_ASK_EVERY_S", 0.0)
    handling.waits_with = {b"slow"}
    async with running(group, handling):
        group.client.bring(b"a", b"a", b"slow", b"behind")
        await until(lambda: group.committed[-1:] == [{0: 2}] and (0, 3) in handling.ended)
        group.refusals.append(CommitFailedError("a rebalance is in progress"))
        group.client.topic_id = (1, 2)
        await until(lambda: group.committed[-1:] == [{0: 0}])
        handling.release.set()
        await until(lambda: (0, 2) in handling.ended)
        await polled_again(group, times=20)
        assert group.committed[-1] == {0: 0}, "what ran on moves no frontier of the new one"
        group.client.bring(b"a")
        await until(lambda: handling.begun[-1] == (0, 0) and group.committed[-1] == {0: 1})
    assert len(group.clients) == 1


async def test_a_topic_made_anew_while_nothing_is_assigned_is_dealt_with_when_something_is(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another member committed of the old one is what this one would begin with."""
    monkeypatch.setattr(identity, "_ASK_EVERY_S", 0.0)
    async with running(group, handling) as engine:
        await polled_again(group)
        await group.client.rebalance(set())
        group.client.topic_id = (1, 2)
        await until(engine._identity.is_another)
        await polled_again(group)
        await group.client.rebalance({0})
        await until(lambda: group.committed == [{0: 0}])
        assert not engine._identity.is_another()


async def test_a_broker_that_tells_no_topic_ids_is_no_trouble(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka tells them from 2.8 on, others may never."""
    monkeypatch.setattr(identity, "_ASK_EVERY_S", 0.0)
    async with running(group, handling):
        group.client.topic_id = None
        await polled_again(group)
        group.client.bring(b"a")
        await until(lambda: group.committed == [{0: 1}])
        assert len(group.clients) == 1


async def test_a_client_that_will_not_stop_is_cut_off_with_its_tasks(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop()` waits for brokers that are gone; left alone, its heartbeat keeps partitions from others
    (aiokafka#659, #1101)."""
    monkeypatch.setattr(closing, "_PATIENCE_S", 0.05)
    async with running(group, handling):
        group.client.hangs_at_stop = True
    assert group.client.coordination.cancelled()
    assert group.client.stopped


async def test_a_client_that_never_gets_to_its_broker_is_replaced(
    group: Group, handling: Handling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that takes connections and says nothing is waited for without a bound (aiokafka#1101, #659)."""
    monkeypatch.setattr(membership, "_REQUEST_TIMEOUT_S", 0.05)
    group.hang_at_start = 2
    async with running(group, handling):
        assert len(group.clients) == 3
        assert [client.stopped for client in group.clients] == [True, True, False]


# --- stopping ---------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_what_was_resumed_and_starts_nothing_more_of_it(
    group: Group, handling: Handling
) -> None:
    """What comes from the parked tickets belongs to no partition. Cancelled half way, it is handled again elsewhere."""
    handling.waits_with = {b"slow"}
    async with running(group, handling, drain_timeout_s=LIMIT_S) as engine:
        engine.offer([Delivery(record(offset=offset, key=b"slow"), "parked") for offset in (7, 8)])
        await until(lambda: handling.begun == [(0, 7)])
        engine.stop()
        await polled_again(group)
        handling.release.set()
        await until(lambda: group.client.stopped)
        assert handling.ended == [(0, 7)]


async def test_a_stop_waits_for_what_outlived_its_assignment(group: Group, handling: Handling) -> None:
    """Its step is still to be stored, though it moves no frontier any more."""
    handling.waits_with = {b"slow"}
    async with running(group, handling, drain_timeout_s=0.5) as engine:
        group.client.bring(b"slow")
        await until(lambda: bool(handling.begun))
        await group.client.rebalance(set())
        engine.stop()
        await polled_again(group)
        handling.release.set()
        await until(lambda: group.client.stopped)
        assert handling.ended == [(0, 0)]
