import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus.frontier import Due, Frontier, Frontiers, Place


class FrontierLaws(RuleBasedStateMachine):
    """Against a model that remembers every offset ever begun."""

    @initialize(first=st.integers(0, 2**40))
    def start(self, first: int) -> None:
        self.frontier = Frontier()
        self.next = first
        self.begun: list[int] = []
        self.open: set[int] = set()
        self.committed: int | None = None

    @rule(gap=st.integers(0, 5))
    def begin(self, gap: int) -> None:
        offset = self.next + gap
        self.frontier.begin(offset)
        self.begun.append(offset)
        self.open.add(offset)
        self.next = offset + 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.frontier.settled(offset)
        self.open.remove(offset)

    @precondition(lambda self: set(self.begun) - self.open)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        self.frontier.settled(data.draw(st.sampled_from(sorted(set(self.begun) - self.open))))

    @rule()
    def commit(self) -> None:
        due = self.frontier.committable()
        if due is not None:
            assert self.committed is None or due > self.committed
            self.frontier.committed(due)
            self.committed = due

    @invariant()
    def commits_exactly_up_to_the_oldest_unsettled(self) -> None:
        if not self.begun:
            assert self.frontier.committable() is None
            return
        expected = min(self.open) if self.open else self.begun[-1] + 1
        assert self.frontier.committable() == (None if expected == self.committed else expected)

    @invariant()
    def keeps_only_what_is_not_yet_below_it(self) -> None:
        above = [offset for offset in self.begun if self.open and offset >= min(self.open)]
        assert len(self.frontier._begun) == len(above)
        assert len(self.frontier._settled) == len(above) - len(self.open)


TestFrontierLaws = FrontierLaws.TestCase
TestFrontierLaws.settings = settings(max_examples=40, stateful_step_count=40)


def test_an_offset_below_one_begun_is_refused() -> None:
    frontier = Frontier()
    frontier.begin(5)
    with pytest.raises(ValueError, match="begins after"):
        frontier.begin(5)


def test_a_result_of_an_ended_epoch_moves_no_frontier() -> None:
    frontiers = Frontiers("t")
    before = [frontiers.begin(0, offset) for offset in (10, 11)]
    frontiers.end([0])
    after = frontiers.begin(0, 10)
    for place in before:
        frontiers.settled(place)
    assert after.epoch != before[0].epoch
    assert [due.offset for due in frontiers.committable()] == [10]
    frontiers.settled(after)
    assert [due.offset for due in frontiers.committable()] == [11]


def test_nothing_of_a_revoked_partition_is_committable() -> None:
    frontiers = Frontiers("t")
    frontiers.settled(frontiers.begin(0, 3))
    frontiers.settled(frontiers.begin(1, 7))
    frontiers.end([0])
    assert [(due.partition, due.offset) for due in frontiers.committable()] == [(1, 8)]


def test_an_acknowledgement_that_comes_after_the_epoch_ended_is_ignored() -> None:
    frontiers = Frontiers("t")
    frontiers.settled(frontiers.begin(0, 3))
    due = frontiers.committable()
    frontiers.end([0])
    frontiers.settled(frontiers.begin(0, 3))
    frontiers.committed(due)
    assert [d.offset for d in frontiers.committable()] == [4]


def test_offsets_that_start_anew_start_a_new_epoch() -> None:
    frontiers = Frontiers("t")
    old = frontiers.begin(0, 100)
    new = frontiers.begin(0, 0)
    frontiers.settled(old)
    frontiers.settled(new)
    assert frontiers.committable() == [Due(0, new.epoch, 1)]
    assert new == Place("t", 0, 0, new.epoch)
    assert new.epoch > old.epoch
