from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus.delivery import Delivery, Lane
from bus.intake import Intake
from bus.lanes import Lanes
from contracts.errors import Undecodable
from contracts.events import TicketSubmitted
from tests.unit.bus.kit import delivery, event


def of_ticket(ticket_id: str, *, partition: int = 0, offset: int = 0) -> Delivery:
    return delivery(event(TicketSubmitted(ticket_id=ticket_id, body="b")), partition=partition, offset=offset)


class LanesLaws(RuleBasedStateMachine):
    """Against a model of one list a lane."""

    @initialize()
    def start(self) -> None:
        self.lanes = Lanes()
        self.offset = 0
        self.waiting: dict[Lane, list[Delivery]] = defaultdict(list)
        self.running: dict[Lane, Delivery] = {}

    @rule(ticket=st.sampled_from("abc"), partition=st.integers(0, 1))
    def offer(self, ticket: str, partition: int) -> None:
        offered = of_ticket(ticket, partition=partition, offset=self.offset)
        self.offset += 1
        self.lanes.offer(offered)
        self.waiting[offered.lane].append(offered)

    @rule()
    def take(self) -> None:
        taken = self.lanes.take()
        could_run = [lane for lane, queue in self.waiting.items() if queue and lane not in self.running]
        if not could_run:
            assert taken is None
            return
        assert taken is not None
        assert taken.lane in could_run, "one a lane"
        assert taken is self.waiting[taken.lane].pop(0), "in order"
        self.running[taken.lane] = taken

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.running)))
        self.lanes.done(lane)
        del self.running[lane]

    @rule(partition=st.integers(0, 1))
    def drop(self, partition: int) -> None:
        self.lanes.drop_partition(partition)
        for lane in self.waiting:
            if lane.partition == partition:
                self.waiting[lane].clear()

    @invariant()
    def counts_are_true(self) -> None:
        for partition in (0, 1):
            held = [d for lane, queue in self.waiting.items() for d in queue if lane.partition == partition]
            held += [d for lane, d in self.running.items() if lane.partition == partition]
            assert self.lanes.records(partition) == len(held)
            assert self.lanes.size_bytes(partition) == sum(d.record.size_bytes for d in held)
            assert self.lanes.running([partition]) == sum(lane.partition == partition for lane in self.running)
        assert self.lanes.running() == len(self.running)
        could_run = [lane for lane, queue in self.waiting.items() if queue and lane not in self.running]
        assert self.lanes.runnable == len(could_run)


TestLanesLaws = LanesLaws.TestCase
TestLanesLaws.settings = settings(max_examples=40, stateful_step_count=40)


def test_a_busy_ticket_does_not_starve_the_others() -> None:
    lanes = Lanes()
    for offset in range(100):
        lanes.offer(of_ticket("busy", offset=offset))
    lanes.offer(of_ticket("quiet", offset=100))
    order = []
    for _ in range(4):
        taken = lanes.take()
        assert taken is not None
        order.append(taken.event.ticket_id)
        lanes.done(taken.lane)
    assert order == ["busy", "quiet", "busy", "busy"]


def test_a_ticket_that_comes_back_after_a_rebalance_waits_for_what_still_runs() -> None:
    lanes = Lanes()
    lanes.offer(of_ticket("a", offset=1))
    old = lanes.take()
    lanes.drop_partition(0)
    lanes.offer(of_ticket("a", offset=1))
    assert lanes.take() is None
    assert old is not None
    lanes.done(old.lane)
    assert lanes.take() is not None


def test_a_record_that_cannot_be_read_takes_the_turn_of_its_key() -> None:
    readable = of_ticket("t1")
    unreadable = delivery(Undecodable("no"), key=b"t1")
    assert unreadable.lane == readable.lane
    assert delivery(Undecodable("no"), key=b"\xff").lane == Lane(0, "\\xff")
    assert delivery(Undecodable("no"), key=None).lane == Lane(0, "")


def test_intake_pauses_above_the_mark_and_resumes_at_half_of_it() -> None:
    intake, lanes = Intake(high_records=4, high_bytes=10**6), Lanes()
    seen = []
    for offset in range(5):
        lanes.offer(of_ticket(f"t{offset}", offset=offset))
        seen.append(intake.is_full(lanes, 0))
    assert seen == [False, False, False, False, True]
    rooms = []
    while taken := lanes.take():
        lanes.done(taken.lane)
        rooms.append(intake.has_room(lanes, 0))
    assert rooms == [False, False, True, True, True]


def test_intake_weighs_large_records() -> None:
    intake, lanes = Intake(high_records=1000, high_bytes=1000), Lanes()
    lanes.offer(delivery(value=b"x" * 1001))
    assert intake.is_full(lanes, 0)
    assert not intake.is_full(lanes, 1)
