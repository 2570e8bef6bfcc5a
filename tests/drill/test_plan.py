"""Plans, rows, and what docs/drill.md says of them."""

from dataclasses import replace

import pytest

from tests.docs.documents import ROOT, section, table
from tests.drill.plan import plan_of, plan_with
from tests.drill.rows import ROWS, rows_of

NUMBERS = {*range(1, 19), 20, 21, *range(24, 35)} - {30, 33}


def test_every_row_is_there_but_the_one_that_waits_for_redriving() -> None:
    assert {row.number for row in ROWS} == NUMBERS


def test_every_row_tells_its_number() -> None:
    for row in ROWS:
        assert (row.inflict.__doc__ or "").startswith(f"Row {row.number}"), row.name


def test_the_document_names_every_row() -> None:
    told: set[int] = set()
    for cell, *_ in table(section(ROOT / "docs/drill.md", "The faults")):
        first, *last = (int(number) for number in cell.replace(" to ", ", ").split(", "))
        told |= set(range(first, (last or [first])[-1] + 1))
    assert told == NUMBERS


def test_a_plan_is_its_seeds_alone() -> None:
    first, again = plan_of(7), plan_of(7)
    assert replace(again, name=first.name) == first


def test_seeds_in_a_row_go_through_all_rows() -> None:
    plans = [plan_of(seed) for seed in range(len(ROWS))]
    assert {row for plan in plans for row in plan.rows} == set(ROWS)


def test_rows_can_be_put_together() -> None:
    assert [row.number for row in plan_with(1, rows_of("12,3")).rows] == [12, 3]


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(ValueError, match="no such rows"):
        rows_of("1,30")
