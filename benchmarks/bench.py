"""What every benchmark is given, and the slices that most of them run."""

import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks import driver
from benchmarks.cluster import Backlog, Cluster
from benchmarks.job import Findings, Job
from benchmarks.result import Arm, Bar, at_most


@dataclass(frozen=True, slots=True)
class Bench:
    """The services under test, and how much is to be run."""

    cluster: Cluster
    quick: bool
    slices: int  # how often each arm runs
    only: frozenset[str]  # the arms asked for; empty: all
    told: Callable[[str], None]
    tickets: int | None = None  # instead of the number that belongs to the benchmark

    def sized(self, whole: int, quick: int) -> int:
        """A size: the whole one, or that of a quick run."""
        return quick if self.quick else whole

    def chosen(self, arms: Iterable[str]) -> list[str]:
        """Those of the arms that were asked for."""
        return [arm for arm in arms if not self.only or arm in self.only]

    def job(self, arm: str, backlog: Backlog, **more: object) -> Job:
        """A job on a backlog, for a group of its own."""
        job = Job(
            arm=arm,
            bootstrap=self.cluster.bootstrap,
            topic=backlog.topic,
            group=new_group(arm),
            ends=backlog.ends,
        )
        return dataclasses.replace(job, **more)  # type: ignore[arg-type]

    def slice_of(self, arm: str, backlog: Backlog, **more: object) -> Callable[[], Awaitable[Findings]]:
        """What runs one slice of an arm on a backlog, each time for a new group."""
        return lambda: driver.run(self.job(arm, backlog, **more))


def new_group(arm: str) -> str:
    """A group name that nobody has used."""
    return f"bench-{arm}-{uuid.uuid4().hex[:8]}"


def proven(arms: Sequence[Arm | None]) -> Bar:
    """The bar that the arms' ledgers hold nothing against them."""
    against = [_against(arm) for arm in arms if arm is not None]
    return at_most("nothing out of order, overlapping, handled again or committed unfinished", sum(against), 0)


def _against(arm: Arm) -> float:
    return sum(float(value) for what, value in arm.notes.items() if what != "occupancy")
