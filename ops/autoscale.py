"""Autoscaling: how many workers an agent should have, from what was measured. No I/O, no clock."""

import math
from collections.abc import Sized
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol


class Lag(Protocol):
    """What is known of an agent's backlog, all partitions together."""

    @property
    def open(self) -> int:
        """Records not finished, in flight or not; those that are parked left out."""

    @property
    def oldest_s(self) -> float:
        """Age of the oldest of them."""

    @property
    def pace_per_s(self) -> float:
        """Records that all workers together finished in a second, lately."""

    @property
    def partitions(self) -> Sized:
        """Of the agent's topic."""

    @property
    def workers(self) -> Sized:
        """Those at work: of the workers that were asked for some may be about to start, or to end."""

    @property
    def paused(self) -> str:
        """Why none of its workers starts anything new; '' when they do."""


_NOTHING_PER_S = 0.01  # a smoothed rate never ends by itself


@dataclass(frozen=True, slots=True)
class Room:
    """What there is besides workers that a handler needs."""

    model: str = ""  # that answers it; '' where it asks none
    model_share_used: float | None = None  # of the tightest limit, by the workers there are; None: no limit
    has_budget: bool = True
    breaker_is_open: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """What an agent's workers are to achieve, and how many they may be."""

    target_s: float = 30.0  # in which a backlog should be worked off
    fewest: int = 1
    most: int = 8
    to_zero: bool = False  # none at all where nothing comes
    calm_s: float = 120.0  # so long fewer have to suffice before any is let go
    settle_s: float = 20.0  # after more were asked for, until their effect is judged
    worth: float = 0.1  # by that share more workers must finish more, or they are taken back
    distrust_s: float = 600.0  # for which a number that was taken back is not tried again


@dataclass(frozen=True, slots=True)
class Raise:
    """More workers that were asked for and have not shown their worth yet."""

    at_s: float
    before: int
    pace_per_s: float  # before


@dataclass(frozen=True, slots=True)
class Memory:
    """What later decisions need to know of earlier ones."""

    wishes: tuple[tuple[float, int], ...] = ()  # when, and how many would have been right
    begun_s: float | None = None  # the first of all
    last: tuple[float, int] | None = None  # when, and how many records were open
    arriving_per_s: float = 0.0  # smoothed over the time in which a backlog should be worked off
    capacity_per_s: float = 0.0  # of one worker, at least
    is_measured: bool = False  # in a backlog: no more than that
    share_each: float | None = None  # of the model limit that one worker uses in a backlog, smoothed over the calm time
    raised: Raise | None = None
    ceiling: int | None = None  # above it nothing was gained
    ceiling_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers an agent is to have, why, and from what that was decided."""

    workers: int
    reason: str
    inputs: dict[str, Any]
    held_by: str = ""  # the bound that keeps more from being asked for


def decide(now_s: float, workers: int, lag: Lag, room: Room, goal: Goal, memory: Memory) -> tuple[Decision, Memory]:
    """Decide how many workers there should be; `workers` were asked for, `now_s` is of a clock that never goes back.

    More at once, as many as work the backlog off in time; fewer only when fewer were enough for all of `calm_s`.
    """
    memory = _learned(now_s, lag, room, goal, memory)
    wish, why = _wish(workers, lag, goal, memory)
    bounded = _bounded(now_s, wish, workers, lag, room, goal, memory)
    memory = _wished(now_s, bounded.count, goal, memory)
    chosen, reason, memory = _chosen(now_s, workers, bounded, lag, goal, memory)
    inputs = {
        "workers": workers,
        "at_work": len(lag.workers),
        "open": lag.open,
        "oldest_s": lag.oldest_s,
        "pace_per_s": lag.pace_per_s,
        "arriving_per_s": memory.arriving_per_s,
        "partitions": len(lag.partitions),
        "capacity_per_s": memory.capacity_per_s,
        "model_share_each": memory.share_each,
        "wish": wish,
        "wish_because": why,
        "bounded_to": bounded.count,
        "bounded_by": bounded.by,
        "paused": lag.paused,
        **asdict(room),
        "goal": asdict(goal),
    }
    return Decision(chosen, reason, inputs, bounded.by if chosen == bounded.count == workers else ""), memory


def _learned(now_s: float, lag: Lag, room: Room, goal: Goal, memory: Memory) -> Memory:
    at_work = len(lag.workers)
    passed_s = now_s - memory.last[0] if memory.last is not None else goal.target_s
    memory = replace(
        memory,
        begun_s=_begun_s(now_s, goal, memory),
        last=(now_s, lag.open),
        arriving_per_s=_arriving_per_s(now_s, lag, goal, memory),
    )
    is_settling = memory.raised is not None and now_s - memory.raised.at_s < goal.settle_s
    if is_settling or not at_work:
        return memory
    if _is_behind(lag, goal) and room.model_share_used is not None:
        memory = replace(memory, share_each=_share_each(room.model_share_used / at_work, passed_s, goal, memory))
    return _measured(lag.pace_per_s / at_work, lag, goal, memory)


def _share_each(lately: float, passed_s: float, goal: Goal, memory: Memory) -> float:
    """Smoothed: a worker that stood still for a moment makes no room for another one."""
    before = lately if memory.share_each is None else memory.share_each
    return before + (lately - before) * min(1.0, passed_s / max(goal.calm_s, goal.target_s))


def _begun_s(now_s: float, goal: Goal, memory: Memory) -> float:
    """Since when it is watched without a gap: what was not seen was not calm."""
    if memory.begun_s is None or memory.last is None or now_s - memory.last[0] > goal.calm_s:
        return now_s
    return memory.begun_s


def _measured(each_per_s: float, lag: Lag, goal: Goal, memory: Memory) -> Memory:
    """What one worker can do is seen while there is a backlog; without one, that it can do at least this."""
    if _is_behind(lag, goal):
        return replace(memory, capacity_per_s=each_per_s, is_measured=True)
    return replace(memory, capacity_per_s=max(memory.capacity_per_s, each_per_s))


def _arriving_per_s(now_s: float, lag: Lag, goal: Goal, memory: Memory) -> float:
    if memory.last is None or now_s <= memory.last[0]:
        return memory.arriving_per_s
    passed_s, before = now_s - memory.last[0], memory.last[1]
    lately_per_s = max(0.0, lag.pace_per_s + (lag.open - before) / passed_s)
    return memory.arriving_per_s + (lately_per_s - memory.arriving_per_s) * min(1.0, passed_s / goal.target_s)


def _is_behind(lag: Lag, goal: Goal) -> bool:
    return lag.pace_per_s > 0 and lag.open > lag.pace_per_s * goal.target_s


def _wish(workers: int, lag: Lag, goal: Goal, memory: Memory) -> tuple[int, str]:
    """How many would be right if nothing else bounded them."""
    if not lag.open and memory.arriving_per_s < _NOTHING_PER_S:
        return 0 if goal.to_zero else goal.fewest, "nothing is left to do"
    if not workers:
        return max(1, goal.fewest), "something has come"
    if not memory.capacity_per_s:
        return max(workers, goal.fewest), "nobody knows yet what one worker can do"
    if not memory.is_measured:
        return max(1, goal.fewest, workers - 1), "there was no backlog yet: one fewer may do"
    to_do_per_s = max(memory.arriving_per_s, lag.open / goal.target_s)
    needed = math.ceil(min(to_do_per_s / memory.capacity_per_s, goal.most))
    return max(1, goal.fewest, needed), f"{to_do_per_s:.1f} records a second to do, {memory.capacity_per_s:.1f} by each"


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A wish within its bounds, and the bound that was met; '' where none was."""

    count: int
    by: str

    @property
    def told(self) -> str:
        """What a reason says of it."""
        return f" (bounded by: {self.by})" if self.by else ""


def _bounded(now_s: float, wish: int, workers: int, lag: Lag, room: Room, goal: Goal, memory: Memory) -> _Bounded:
    """Some bounds only hold up more: those there are stay, the fewest come, and so does the first, who finds out."""
    bounds = {"partitions": len(lag.partitions), "most": goal.most}
    there = max(workers, goal.fewest, 1)
    for name, holds in (
        ("paused", bool(lag.paused)),
        ("breaker open", room.breaker_is_open),
        ("budget spent", not room.has_budget),
    ):
        if holds:
            bounds[name] = there
    if room.model_share_used is not None:
        bounds["model limit"] = max(there, _fed(len(lag.workers), room.model_share_used, goal, memory))
    if memory.ceiling is not None and now_s < memory.ceiling_until_s:
        bounds["more gained nothing"] = max(memory.ceiling, 1)
    tightest = min(bounds, key=lambda name: bounds[name])
    return _Bounded(bounds[tightest], tightest) if bounds[tightest] < wish else _Bounded(wish, "")


def _fed(at_work: int, share_used: float, goal: Goal, memory: Memory) -> int:
    """How many workers the model limit feeds, if each uses as much of it as those at work do."""
    share = max(share_used, at_work * (memory.share_each or 0.0))
    return math.floor(min(max(at_work, 1) / share, goal.most)) if share else goal.most


def _wished(now_s: float, wish: int, goal: Goal, memory: Memory) -> Memory:
    recent = tuple((at_s, count) for at_s, count in memory.wishes if at_s > now_s - goal.calm_s)
    return replace(memory, wishes=(*recent, (now_s, wish)))


def _chosen(
    now_s: float, workers: int, bounded: _Bounded, lag: Lag, goal: Goal, memory: Memory
) -> tuple[int, str, Memory]:
    raised = memory.raised
    if raised is not None and now_s - raised.at_s >= goal.settle_s:
        memory = replace(memory, raised=None)
        if _gained_nothing(raised, lag, goal):
            return _taken_back(now_s, workers, raised, lag, goal, memory)
    elif raised is not None and bounded.count >= workers:
        return workers, f"{workers} workers are given {goal.settle_s:g} s to show their worth{bounded.told}", memory
    if bounded.count > workers:
        asked = Raise(now_s, workers, lag.pace_per_s) if workers else None
        reason = f"more, from {workers} to {bounded.count}{bounded.told}"
        return bounded.count, reason, replace(memory, raised=asked)
    if bounded.count == workers and bounded.by:
        return workers, f"no more than {workers}{bounded.told}", memory
    return (*_lowered(now_s, workers, goal, memory), memory)


def _gained_nothing(raised: Raise, lag: Lag, goal: Goal) -> bool:
    """Where there is still a backlog, more workers that finish no more do not help: something else is short."""
    return _is_behind(lag, goal) and lag.pace_per_s < raised.pace_per_s * (1 + goal.worth)


def _taken_back(
    now_s: float, workers: int, raised: Raise, lag: Lag, goal: Goal, memory: Memory
) -> tuple[int, str, Memory]:
    reason = (
        f"back from {workers} to {raised.before}: they finished {lag.pace_per_s:.1f} a second, "
        f"fewer did {raised.pace_per_s:.1f}"
    )
    until_s = now_s + goal.distrust_s
    return raised.before, reason, replace(memory, ceiling=raised.before, ceiling_until_s=until_s, wishes=())


def _lowered(now_s: float, workers: int, goal: Goal, memory: Memory) -> tuple[int, str]:
    """Fewer, if for all of the calm time no more than that would have been right."""
    enough = max(count for _, count in memory.wishes)
    if enough >= workers:
        return workers, f"{workers} are right"
    calm_since_s = memory.begun_s if memory.begun_s is not None else now_s
    if now_s - calm_since_s < goal.calm_s:
        return workers, f"fewer may be enough, which is watched for {goal.calm_s:g} s"
    return enough, f"fewer, from {workers} to {enough}: that was enough for {goal.calm_s:g} s"
