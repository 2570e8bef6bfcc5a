"""The load of the frontier: records begin in order, and any of those in hand may be acknowledged next."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from array import array
from collections.abc import Callable
from typing import Protocol

from benchmarks.job import Job
from benchmarks.ledger import Ledger

COMMIT_EVERY = 1_000


class Tracker(Protocol):
    """What is measured. Offsets begin at 0 and leave no gap."""

    def begin(self, offset: int) -> object:
        """Take an offset in hand."""

    def settled(self, offset: int) -> None:
        """Acknowledge it."""

    def committable(self) -> int | None:
        """The offset to commit."""


def measure(job: Job, ledger: Ledger, make: Callable[[], Tracker]) -> None:
    """Time the acknowledgements, then run them once more to weigh what is held."""
    in_hand, acks = int(job.options["in_hand"]), int(job.options["acks"])
    order = _order(in_hand, acks)
    ledger.figures["ack_us"] = _timed(make(), in_hand, order) / acks * 1e6
    ledger.figures["bytes"] = _weighed(make, in_hand, order) / in_hand


def _order(in_hand: int, acks: int) -> array[int]:
    """Which offset is acknowledged next: any of those in hand, with the same chance."""
    drawn, held = random.Random(1), list(range(in_hand))
    order = array("q")
    for following in range(in_hand, in_hand + acks):
        at = drawn.randrange(in_hand)
        order.append(held[at])
        held[at] = following
    return order


def _run(tracker: Tracker, in_hand: int, order: array[int]) -> None:
    for offset in range(in_hand):
        tracker.begin(offset)
    for number, offset in enumerate(order):
        tracker.settled(offset)
        tracker.begin(in_hand + number)
        if number % COMMIT_EVERY == 0:
            tracker.committable()


def _timed(tracker: Tracker, in_hand: int, order: array[int]) -> float:
    gc.collect()
    began = time.process_time()
    _run(tracker, in_hand, order)
    return time.process_time() - began


def _weighed(make: Callable[[], Tracker], in_hand: int, order: array[int]) -> int:
    """The most that it held at any moment, the oldest record in hand lingering as chance has it."""
    gc.collect()
    tracemalloc.start()
    _run(make(), in_hand, order)
    return tracemalloc.get_traced_memory()[1]
