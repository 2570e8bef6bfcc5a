"""From a seed to a plan: which faults, on which system, under which load."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.drill.rows import ROWS, Row

_MOST_SECONDS = 14.0  # of faults in a run
_MOST_ROWS = 3
_ONE_MORE = 0.6  # the chance of each further one


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will be. The same seed and rows make the same plan."""

    seed: int
    name: str  # of topics, groups and database; new at each run
    rows: tuple[Row, ...]
    askers: int
    carriers: int
    tickets: int
    partitions: int
    lanes: int
    spread_s: float


def plan_of(seed: int, allowed: Sequence[Row] = ROWS) -> Plan:
    """The plan of a seed: one to three of the rows allowed. Seeds in a row begin with one row after the other."""
    rng = Random(seed)
    rows = [allowed[seed % len(allowed)]]
    for row in rng.sample(allowed, min(len(allowed), _MOST_ROWS)):
        fits = len(rows) < _MOST_ROWS and sum(r.typical_s for r in [*rows, row]) <= _MOST_SECONDS
        if row not in rows and fits and rng.random() < _ONE_MORE:
            rows.append(row)
    rng.shuffle(rows)
    return plan_with(seed, rows)


def plan_with(seed: int, rows: Sequence[Row]) -> Plan:
    """The plan of a seed that has exactly these rows, in this order."""
    rng = Random(f"{seed}/plan")
    return Plan(
        seed=seed,
        name=f"drill-{seed}-{uuid.uuid4().hex[:6]}",
        rows=tuple(rows),
        askers=max(rng.choice((1, 2)), *(row.askers for row in rows)),
        carriers=rng.choice((1, 1, 2)),
        tickets=rng.randint(60, 120),
        partitions=min((row.partitions for row in rows if row.partitions), default=4),
        lanes=max(rng.choice((8, 64, 256)), *(row.lanes for row in rows)),
        spread_s=rng.uniform(2.0, 5.0),
    )
