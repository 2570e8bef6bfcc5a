from collections import defaultdict
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus.delivery import Delivery
from bus.frontier import Assignment
from bus.intake import Intake
from bus.lanes import Lanes
from contracts.events import TicketSubmitted
from tests.unit.bus.kit import NOW, event, examples, fetched


class Offers:
    """Makes deliveries of one assignment, one offset after the other."""

    def __init__(self) -> None:
        self.assignment = Assignment(0)
        self.offset = 0

    def of(self, ticket_id: str, *, tenant: str = "default", limit_s: int | None = None) -> Delivery:
        deadline = None if limit_s is None else NOW + timedelta(seconds=limit_s)
        one = fetched(self.assignment, self.offset)
        self.offset += 1
        one.read_as(event(TicketSubmitted(ticket_id=ticket_id, tenant_id=tenant, body="b"), deadline=deadline))
        return one


class LanesLaws(RuleBasedStateMachine):
    """Against a model of one list a lane."""

    @initialize()
    def start(self) -> None:
        self.lanes = Lanes()
        self.offers = Offers()
        self.waiting: dict[str, list[Delivery]] = defaultdict(list)
        self.running: dict[str, Delivery] = {}

    def could_run(self) -> list[str]:
        return [ticket for ticket, queue in self.waiting.items() if queue and ticket not in self.running]

    @rule(ticket=st.sampled_from("abcd"), tenant=st.sampled_from("xy"), limit_s=st.none() | st.integers(0, 3))
    def offer(self, ticket: str, tenant: str, limit_s: int | None) -> None:
        offered = self.offers.of(ticket, tenant=tenant, limit_s=limit_s)
        self.lanes.offer(offered)
        self.waiting[ticket].append(offered)

    @rule()
    def take(self) -> None:
        taken = self.lanes.take()
        could_run = self.could_run()
        if not could_run:
            assert taken is None
            return
        assert taken is not None
        ticket = taken.event.ticket_id
        assert ticket in could_run, "one a lane"
        assert taken is self.waiting[ticket].pop(0), "in order"
        rivals = [self.waiting[t][0] for t in could_run if t != ticket and self.waiting[t][0].tenant == taken.tenant]
        for rival in rivals:
            if rival.limit is not None:
                assert taken.limit is not None, "what has a limit goes first"
                assert taken.limit <= rival.limit, "the earliest limit goes first"
        self.running[ticket] = taken

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        self.lanes.done(self.running.pop(data.draw(st.sampled_from(sorted(self.running)))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        one = self.running.pop(ticket)
        self.lanes.again(one)
        if one.assignment is self.offers.assignment:  # it is not revoked
            self.waiting[ticket].insert(0, one)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cut_behind(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        assert self.lanes.cut_behind(self.running[ticket]) == self.waiting[ticket]
        self.waiting[ticket].clear()

    @rule()
    def revoke(self) -> None:
        self.offers.assignment.over = True
        self.lanes.drop(lambda delivery: delivery.assignment is not None and delivery.assignment.over)
        self.waiting.clear()
        self.offers.assignment = Assignment(0)

    @rule(odd=st.booleans())
    def drop_some(self, odd: bool) -> None:
        self.lanes.drop(lambda delivery: delivery.record.offset % 2 == odd)
        for ticket, queue in self.waiting.items():
            self.waiting[ticket] = [d for d in queue if d.record.offset % 2 != odd]

    @invariant()
    def counts_are_true(self) -> None:
        assert self.lanes.ready == len(self.could_run())
        assert len(self.lanes) == len({t for t, queue in self.waiting.items() if queue} | set(self.running))
        mine = [d for d in self.running.values() if d.assignment is self.offers.assignment]
        assert self.offers.assignment.running == len(mine)
        assert self.lanes.running == len(self.running)


TestLanesLaws = LanesLaws.TestCase
TestLanesLaws.settings = settings(max_examples=examples(60, 18_000), stateful_step_count=50)


def taken(lanes: Lanes) -> Delivery:
    one = lanes.take()
    assert one is not None
    return one


def test_a_busy_ticket_does_not_starve_the_others() -> None:
    lanes, offers = Lanes(), Offers()
    for _ in range(100):
        lanes.offer(offers.of("busy"))
    lanes.offer(offers.of("quiet"))
    order = []
    for _ in range(4):
        one = taken(lanes)
        order.append(one.key)
        lanes.done(one)
    assert order == ["busy", "quiet", "busy", "busy"]


def test_a_tenant_with_most_of_the_load_does_not_make_another_wait() -> None:
    lanes, offers = Lanes(), Offers()
    for n in range(90):
        lanes.offer(offers.of(f"large-{n}", tenant="large", limit_s=n))
    for n in range(3):
        lanes.offer(offers.of(f"small-{n}", tenant="small", limit_s=1000 + n))
    first = [taken(lanes).tenant for _ in range(6)]
    assert first.count("small") == 3


def test_a_ticket_that_comes_back_after_a_rebalance_waits_for_what_still_runs() -> None:
    """The stale entry swallowed the fresh record, and consumption stalled
    (confluentinc/parallel-consumer#875, astubbs/parallel-consumer#183)."""
    lanes, offers = Lanes(), Offers()
    lanes.offer(offers.of("a"))
    old = taken(lanes)
    offers.assignment.over = True
    lanes.drop(lambda delivery: True)
    offers.assignment = Assignment(0)
    lanes.offer(offers.of("a"))
    assert lanes.take() is None
    lanes.done(old)
    assert lanes.take() is not None


def test_a_ticket_in_two_partitions_is_one_lane() -> None:
    """One key in two places was two shards, or one too few (confluentinc/parallel-consumer#184)."""
    lanes, here, there = Lanes(), Offers(), Offers()
    there.assignment = Assignment(1)
    lanes.offer(here.of("a"))
    lanes.offer(there.of("a"))
    first = taken(lanes)
    assert lanes.take() is None
    lanes.done(first)
    assert taken(lanes).assignment is there.assignment


def test_what_cannot_run_again_because_its_partition_is_gone_frees_its_lane() -> None:
    lanes, offers = Lanes(), Offers()
    lanes.offer(offers.of("a"))
    one = taken(lanes)
    offers.assignment.over = True
    lanes.again(one)
    assert len(lanes) == lanes.ready == 0


def test_intake_pauses_above_the_mark_and_resumes_at_half_of_it() -> None:
    """What is in hand had no bound (confluentinc/parallel-consumer#832, #834, #836)."""
    intake, assignment = Intake(high_records=4, high_bytes=10**6), Assignment(0)
    seen = []
    indices = []
    for offset in range(5):
        indices.append(assignment.begin(offset))
        seen.append(intake.is_full(assignment))
    assert seen == [False, False, False, False, True]
    rooms = []
    for index in indices:
        assignment.settled(index)
        rooms.append(intake.has_room(assignment))
    assert rooms == [False, False, True, True, True]


def test_intake_weighs_large_records_and_their_headers() -> None:
    intake, assignment = Intake(high_records=1000, high_bytes=1000), Assignment(0)
    fetched(assignment, 0, value=b"x" * 600)
    assert not intake.is_full(assignment)
    fetched(assignment, 1, value=b"", headers=(("h" * 100, b"v" * 400),))
    assert intake.is_full(assignment)
