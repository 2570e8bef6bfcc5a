import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus import frontier
from bus.frontier import Assignment, Frontiers
from tests.unit.bus.kit import examples


class AssignmentLaws(RuleBasedStateMachine):
    """Against a model that remembers every offset ever begun."""

    @initialize(first=st.integers(0, 2**40))
    def start(self, first: int) -> None:
        self.assignment = Assignment(0)
        self.next = first
        self.begun: dict[int, int] = {}  # index by offset
        self.open: set[int] = set()
        self.committed: int | None = None

    @rule(gap=st.sampled_from([0, 0, 0, 1, 5, 2**33]), count=st.integers(1, 8))
    def begin(self, gap: int, count: int) -> None:
        self.next += gap
        for _ in range(count):
            self.begun[self.next] = self.assignment.begin(self.next, 10)
            self.open.add(self.next)
            self.next += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.assignment.settled(self.begun[offset], 10)
        self.open.remove(offset)

    @rule()
    def settle_all(self) -> None:
        for offset in sorted(self.open, reverse=True):
            self.assignment.settled(self.begun[offset], 10)
        self.open.clear()

    @precondition(lambda self: set(self.begun) - self.open)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        again = data.draw(st.sampled_from(sorted(set(self.begun) - self.open)))
        self.assignment.settled(self.begun[again], 10)

    @rule()
    def commit(self) -> None:
        due = self.assignment.committable()
        if due is not None:
            assert self.committed is None or due > self.committed
            self.assignment.committed(due)
            self.committed = due

    @invariant()
    def commits_exactly_up_to_the_oldest_unsettled(self) -> None:
        if not self.begun:
            assert self.assignment.committable() is None
            return
        expected = min(self.open) if self.open else max(self.begun) + 1
        assert self.assignment.frontier() == expected
        assert self.assignment.committable() == (None if expected == self.committed else expected)

    @invariant()
    def counts_what_is_in_hand(self) -> None:
        assert self.assignment.unsettled == len(self.open)
        assert self.assignment.held_bytes == 10 * len(self.open)


TestAssignmentLaws = AssignmentLaws.TestCase
TestAssignmentLaws.settings = settings(max_examples=examples(40, 15_000), stateful_step_count=40)


class TrimmingLaws(AssignmentLaws):
    """The same laws where the settled front is cut off all the time."""

    @initialize(first=st.integers(0, 2**40))
    def start(self, first: int) -> None:
        self.before = frontier._TRIM_ABOVE
        frontier._TRIM_ABOVE = 2
        super().start(first)

    def teardown(self) -> None:
        frontier._TRIM_ABOVE = self.before


TestTrimmingLaws = TrimmingLaws.TestCase
TestTrimmingLaws.settings = settings(max_examples=examples(40, 15_000), stateful_step_count=40)


def test_a_hundred_thousand_in_flight_that_end_backwards_leave_little_behind() -> None:
    assignment = Assignment(0)
    indices = [assignment.begin(offset) for offset in range(100_000)]
    for index in reversed(indices[1:]):
        assignment.settled(index)
    assert assignment.frontier() == 0
    assignment.settled(indices[0])
    assert assignment.frontier() == 100_000
    assert len(assignment._settled) == 0
    assert len(assignment._gaps) == len(assignment._shifts) == 1


def test_gaps_that_were_passed_are_forgotten() -> None:
    """A compacted topic has a gap at nearly every record."""
    assignment = Assignment(0)
    indices = [assignment.begin(3 * number) for number in range(20_000)]
    for index in indices[:15_000]:
        assignment.settled(index)
    assert assignment.frontier() == 45_000
    assert len(assignment._gaps) == len(assignment._settled) == 5_000
    for index in indices[15_000:]:
        assignment.settled(index)
    assert assignment.frontier() == 59_998


def test_an_offset_below_one_begun_is_refused() -> None:
    assignment = Assignment(0)
    assignment.begin(5)
    with pytest.raises(ValueError, match="begins after"):
        assignment.begin(5)


def test_a_result_of_an_ended_epoch_moves_no_frontier() -> None:
    """A stale entry that outlived revocation and re-assignment (confluentinc/parallel-consumer#875, #826)."""
    frontiers = Frontiers()
    before = frontiers.of(0, 10)
    indices = [before.begin(offset) for offset in (10, 11)]
    frontiers.end([0])
    after = frontiers.of(0, 10)
    index = after.begin(10)
    for old in indices:
        before.settled(old)
    assert before.over
    assert not after.over
    assert [(due.assignment, due.offset) for due in frontiers.committable()] == [(after, 10)]
    after.settled(index)
    assert [due.offset for due in frontiers.committable()] == [11]


def test_what_was_begun_but_not_settled_is_never_below_the_frontier() -> None:
    """The highest seen was committed for records that never started (confluentinc/parallel-consumer#826)."""
    frontiers = Frontiers()
    assignment = frontiers.of(0, 7)
    for offset in (7, 8, 9):
        assignment.begin(offset)
    frontiers.close([0])
    assert [due.offset for due in frontiers.committable()] == [7]


def test_compacted_and_truncated_ranges_block_nothing() -> None:
    """Gaps kept an old offset committed for ever (confluentinc/parallel-consumer#409, #329)."""
    assignment = Assignment(0)
    for offset in (3, 90, 10**12):
        assignment.settled(assignment.begin(offset))
    assert assignment.committable() == 10**12 + 1


def test_nothing_of_a_revoked_partition_is_committable() -> None:
    frontiers = Frontiers()
    for partition, offset in ((0, 3), (1, 7)):
        assignment = frontiers.of(partition, offset)
        assignment.settled(assignment.begin(offset))
    frontiers.end([0])
    assert [(due.partition, due.offset) for due in frontiers.committable()] == [(1, 8)]


def test_an_acknowledgement_that_comes_after_the_epoch_ended_is_ignored() -> None:
    frontiers = Frontiers()
    old = frontiers.of(0, 3)
    old.settled(old.begin(3))
    [due] = frontiers.committable()
    frontiers.end([0])
    new = frontiers.of(0, 3)
    new.settled(new.begin(3))
    due.assignment.committed(due.offset)
    assert [d.offset for d in frontiers.committable()] == [4]


def test_offsets_that_start_anew_start_a_new_epoch() -> None:
    """The old offset was committed on and on after OFFSET_OUT_OF_RANGE (confluentinc/parallel-consumer#409, #425)."""
    frontiers = Frontiers()
    old = frontiers.of(0, 100)
    index = old.begin(100)
    new = frontiers.of(0, 0)
    new.settled(new.begin(0))
    old.settled(index)
    assert old.over
    assert [(due.assignment, due.offset) for due in frontiers.committable()] == [(new, 1)]
