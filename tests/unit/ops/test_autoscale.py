import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ops.autoscale import Decision, Goal, Memory, Room, decide

GOAL = Goal(target_s=30, fewest=1, most=8, calm_s=120, settle_s=20)


@dataclass(frozen=True)
class Measured:
    open: int
    pace_per_s: float
    oldest_s: float = 0.0
    partitions: range = range(6)
    paused: str = ""
    workers: range = range(0)


class Agent:
    """An agent whose workers each finish so many a second, up to what all together can; time goes by in steps."""

    def __init__(self, *, each_per_s: float = 10.0, all_per_s: float = math.inf, goal: Goal = GOAL) -> None:
        self.each_per_s = each_per_s
        self.all_per_s = all_per_s
        self.goal = goal
        self.now_s = 1000.0
        self.workers = goal.fewest
        self.unfinished = 0.0
        self.arriving_per_s = 0.0
        self.room = Room()
        self.paused = ""
        self.started: int | None = None
        self.memory = Memory()
        self.history: list[int] = []
        self.decisions: list[Decision] = []

    def step(self, seconds: float = 5.0) -> Decision:
        """Let time go by, and decide then."""
        can = min(self.at_work() * self.each_per_s, self.all_per_s) * seconds
        finished = min(can, self.unfinished + self.arriving_per_s * seconds)
        self.unfinished += self.arriving_per_s * seconds - finished
        self.now_s += seconds
        self.history = self.history or [self.workers]
        lag = Measured(
            math.ceil(self.unfinished), finished / seconds, paused=self.paused, workers=range(self.at_work())
        )
        decision, self.memory = decide(self.now_s, self.workers, lag, self.room, self.goal, self.memory)
        self.workers = decision.workers
        self.history.append(self.workers)
        self.decisions.append(decision)
        return decision

    def at_work(self) -> int:
        """Of the workers asked for, those that have started."""
        return self.workers if self.started is None else min(self.workers, self.started)

    def steps(self, seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            self.step()

    def turns(self) -> int:
        """How often it went the other way than before."""
        ways = [b > a for a, b in itertools.pairwise(self.history) if a != b]
        return sum(a != b for a, b in itertools.pairwise(ways))


def test_a_burst_raises_at_once_to_what_works_it_off_in_time_and_calm_lowers_again_without_flapping() -> None:
    agent = Agent()
    agent.unfinished = 1500
    agent.step()
    assert agent.workers == math.ceil(1450 / 30 / 10)
    agent.steps(600)
    assert agent.workers == 1
    assert agent.turns() == 1
    assert agent.unfinished == 0


def test_it_is_lowered_only_after_the_calm_time_and_not_before_it_has_been_watched_for_so_long() -> None:
    agent = Agent()
    agent.workers = 4
    agent.arriving_per_s = 5
    agent.steps(115)
    assert agent.workers == 4
    agent.steps(10)
    assert agent.workers == 3, "what one can do was not seen yet: one at a time"
    agent.steps(400)
    assert agent.workers == 1
    assert any("was enough for 120 s" in decision.reason for decision in agent.decisions)


def test_a_need_within_the_calm_time_puts_the_lowering_off() -> None:
    agent = Agent(goal=replace(GOAL, most=3))
    agent.workers, agent.unfinished = 3, 2000
    agent.steps(100)
    agent.unfinished = 800
    agent.step()
    agent.steps(110)
    assert agent.workers == 3
    agent.steps(60)
    assert agent.workers == 1


def test_steady_arrivals_keep_as_many_as_they_need_though_the_backlog_is_gone() -> None:
    agent = Agent()
    agent.arriving_per_s = 25
    agent.steps(1200)
    assert agent.workers == 3
    assert agent.turns() <= 1
    assert agent.unfinished == 0


def test_there_are_never_more_than_partitions() -> None:
    agent = Agent()
    agent.unfinished = 1e6
    assert agent.step().workers == 6
    assert agent.decisions[-1].inputs["bounded_by"] == "partitions"


def test_there_are_never_more_than_allowed_and_never_fewer() -> None:
    agent = Agent(goal=replace(GOAL, fewest=2, most=4))
    agent.unfinished = 1e5
    assert agent.step().workers == 4
    agent.unfinished = 0
    agent.steps(600)
    assert agent.workers == 2


def test_to_zero_only_where_that_is_allowed_and_back_as_soon_as_something_comes() -> None:
    agent = Agent(goal=replace(GOAL, fewest=0, to_zero=True))
    agent.workers = 1
    agent.steps(200)
    assert agent.workers == 0
    agent.unfinished = 1
    assert agent.step().workers == 1
    other = Agent()
    other.steps(600)
    assert other.workers == 1


def test_an_open_breaker_or_a_spent_budget_stops_more_and_takes_none_away() -> None:
    for room, name in ((Room(breaker_is_open=True), "breaker open"), (Room(has_budget=False), "budget spent")):
        agent = Agent()
        agent.workers, agent.room, agent.unfinished = 2, room, 1e5
        agent.steps(300)
        assert agent.workers == 2
        assert agent.decisions[-1].inputs["bounded_by"] == name
        agent.room = Room()
        agent.step()
        assert agent.workers > 2


def test_a_model_limit_bounds_them_to_those_it_has_room_for_and_the_reason_says_so() -> None:
    agent = Agent()
    agent.workers, agent.room, agent.unfinished = 2, Room(model_share_used=0.6), 1e5
    assert agent.step().reason == "more, from 2 to 3 (bounded by: model limit)"
    agent.room = Room(model_share_used=1.0)
    agent.steps(300)
    assert agent.workers == 3
    assert agent.decisions[-1].reason == "no more than 3 (bounded by: model limit)"


def test_workers_that_stood_still_for_a_moment_make_no_room_below_a_model_limit() -> None:
    agent = Agent()
    agent.workers, agent.room, agent.unfinished = 2, Room(model_share_used=0.8), 1e5
    agent.steps(60)
    agent.room = Room(model_share_used=0.1)
    agent.steps(10)
    agent.room = Room(model_share_used=0.8)
    agent.steps(60)
    assert agent.history == [2] * len(agent.history)
    agent.room = Room(model_share_used=0.3)
    agent.steps(60)
    assert agent.workers > 2, "there is room in earnest"


def test_workers_that_have_not_started_yet_make_no_others_come() -> None:
    agent = Agent(goal=replace(GOAL, settle_s=5, worth=0))
    agent.started, agent.room, agent.unfinished = 1, Room(model_share_used=0.4), 800
    agent.steps(60)
    assert agent.workers == 2, "one takes .4 of the limit"
    agent = Agent(goal=replace(GOAL, settle_s=5, worth=0))
    agent.started, agent.unfinished = 1, 800
    agent.steps(30)
    assert agent.workers == 3, "each finishes 10 a second"


def test_a_limit_that_is_passed_at_this_pace_takes_no_worker_away() -> None:
    agent = Agent()
    agent.workers, agent.room, agent.unfinished = 2, Room(model_share_used=2.5), 1e5
    agent.steps(300)
    assert agent.history == [2] * len(agent.history)


def test_paused_workers_are_joined_by_no_others() -> None:
    agent = Agent()
    agent.workers, agent.paused, agent.unfinished = 2, "paused by ada", 1e5
    assert agent.step().reason == "no more than 2 (bounded by: paused)"
    assert agent.decisions[-1].inputs["paused"] == "paused by ada"
    agent.paused = ""
    assert agent.step().workers == 6


def test_the_first_worker_comes_whatever_holds_more_back_for_it_is_the_one_that_finds_out() -> None:
    for room in (Room(breaker_is_open=True), Room(has_budget=False)):
        agent = Agent(goal=replace(GOAL, fewest=0, to_zero=True))
        agent.workers, agent.room, agent.unfinished = 0, room, 1e5
        assert agent.step().workers == 1


def test_the_fewest_come_whatever_holds_more_back() -> None:
    agent = Agent(goal=replace(GOAL, fewest=3))
    agent.workers, agent.unfinished = 1, 1e5
    agent.paused, agent.room = "it has no workers", Room(model_share_used=1, breaker_is_open=True, has_budget=False)
    agent.steps(100)
    assert agent.workers == 3


def test_what_nobody_watched_was_not_calm() -> None:
    agent = Agent()
    agent.workers = 4
    agent.steps(60)
    agent.now_s += 1000
    agent.steps(100)
    assert agent.workers == 4
    agent.steps(60)
    assert agent.workers < 4


def test_more_that_finish_no_more_are_taken_back_and_not_tried_again_for_a_while() -> None:
    agent = Agent(each_per_s=10, all_per_s=10.5)
    agent.workers, agent.unfinished = 1, 1e5
    assert agent.step().workers > 1
    agent.steps(25)
    assert agent.workers == 1
    assert any("back from" in decision.reason for decision in agent.decisions)
    agent.steps(500)
    assert agent.workers == 1
    assert agent.turns() == 1


def test_more_that_do_finish_more_stay() -> None:
    agent = Agent()
    agent.unfinished = 1e5
    agent.steps(300)
    assert agent.history == [1] + [6] * 60


def test_while_nothing_was_finished_yet_nobody_guesses() -> None:
    lag = Measured(5000, 0.0)
    decision, _ = decide(0.0, 2, lag, Room(), GOAL, Memory())
    assert decision.workers == 2


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.floats(0, 1e4, allow_nan=False),
            st.one_of(st.none(), st.floats(0, 1)),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.integers(0, 3),
    st.integers(3, 10),
)
def test_whatever_is_measured_the_number_stays_within_its_bounds(moments: list[Any], fewest: int, most: int) -> None:
    goal, memory, workers = replace(GOAL, fewest=fewest, most=most, to_zero=fewest == 0), Memory(), max(fewest, 1)
    for n, (open_, pace_per_s, used, is_open) in enumerate(moments):
        lag = Measured(open_, pace_per_s, workers=range(workers))
        room = Room(model_share_used=used, breaker_is_open=is_open)
        decision, memory = decide(n * 7.0, workers, lag, room, goal, memory)
        assert fewest <= decision.workers <= max(workers, min(most, 6))
        if open_ and workers:
            assert decision.workers >= 1
        workers = decision.workers
        assert len(memory.wishes) <= GOAL.calm_s / 7 + 2
