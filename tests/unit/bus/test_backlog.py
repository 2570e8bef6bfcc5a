"""What of a partition is not known to be finished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import backlog
from bus.backlog import Backlog, begins_at
from contracts.lag_ports import Asked, Place


def record(offset: int, event_id: str | None = None, ticket_id: str = "t1") -> Asked:
    return Asked(0, offset, 1_000 + offset, event_id or f"e{offset}", ticket_id)


def read(backlog: Backlog, *offsets: int, read_to: int | None = None) -> None:
    backlog.take([record(offset) for offset in offsets], offsets[-1] + 1 if read_to is None else read_to)


def open_in(backlog: Backlog) -> list[int]:
    return [one.offset for one in backlog.open()]


@pytest.mark.parametrize(
    ("committed", "start", "end", "begin"),
    [
        (None, 7, 20, 7),  # nothing is committed: from the log's start
        (10, 7, 20, 10),
        (3, 7, 20, 7),  # retention took what was committed
        (20, 7, 20, 20),
        (25, 7, 20, 7),  # the log is shorter than that: the client begins anew
    ],
)
def test_a_worker_goes_on_where_it_committed_or_at_the_logs_start(
    committed: int | None, start: int, end: int, begin: int
) -> None:
    assert begins_at(committed, start, end) == begin


def test_what_is_finished_above_the_commit_is_not_open() -> None:
    backlog = Backlog()
    backlog.move(0, 5)
    read(backlog, 0, 1, 2, 4)
    backlog.finished({"e1", "e4", "another"})
    assert open_in(backlog) == [0, 2]


def test_the_same_event_twice_is_finished_twice() -> None:
    backlog = Backlog()
    backlog.move(0, 2)
    backlog.take([record(0, "same"), record(1, "same")], 2)
    backlog.finished({"same"})
    assert open_in(backlog) == []


def test_what_is_committed_is_forgotten_and_not_read_again() -> None:
    backlog = Backlog()
    backlog.move(0, 5)
    read(backlog, 0, 1, 2, 3, 4)
    backlog.move(3, 9)
    assert (open_in(backlog), backlog.read_to) == ([3, 4], 5)
    backlog.move(7, 9)
    assert (open_in(backlog), backlog.read_to) == ([], 7)


def test_a_group_that_was_set_back_is_read_again() -> None:
    backlog = Backlog()
    backlog.move(3, 5)
    read(backlog, 3, 4)
    backlog.move(1, 5)
    assert (open_in(backlog), backlog.read_to) == ([], 1)


def test_a_topic_that_became_shorter_is_read_again() -> None:
    backlog = Backlog()
    backlog.move(0, 5)
    read(backlog, 0, 1, 2, 3, 4)
    backlog.move(0, 2)
    assert (open_in(backlog), backlog.read_to) == ([], 0)


def test_parked_records_are_told_apart_by_their_timestamps() -> None:
    backlog = Backlog()
    backlog.move(0, 2)
    read(backlog, 0, 1)
    of_an_older_topic = Place(0, 1, 5)
    assert [one.offset for one in backlog.open({Place(0, 0, 1_000), of_an_older_topic})] == [1]
    backlog.buried({Place(0, 1, 1_001)})
    assert open_in(backlog) == [0]


def test_no_more_is_read_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_OPEN", 2)
    full = Backlog()
    full.move(0, 10)
    read(full, 0, 1)
    assert full.is_full
    full.finished({"e0"})
    assert not full.is_full


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 40), st.sets(st.integers(0, 40))),
        max_size=20,
    )
)
def test_however_it_is_looked_at_the_open_ones_are_those_from_the_commit_that_nobody_finished(
    steps: list[tuple[int, int, set[int]]],
) -> None:
    """A record that is a gap in the log has an odd offset that three divides."""
    backlog, finished, begin, end = Backlog(), set[int](), 0, 0
    for commit, length, done in steps:
        begin, end = min(commit, length), max(end, length)
        finished |= done
        backlog.move(begin, end)
        fresh = [record(offset) for offset in range(backlog.read_to, end) if offset % 6 != 3]
        backlog.take(fresh, end)
        backlog.finished({f"e{offset}" for offset in finished})
        assert open_in(backlog) == [o for o in range(begin, end) if o % 6 != 3 and o not in finished]
