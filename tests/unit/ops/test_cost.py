"""The report of costs: days that are none, sums that are exact, and the table."""

from datetime import date
from decimal import Decimal

import pytest
from rich.console import Console

from contracts.errors import SupportError
from contracts.model_ports import CostRow
from llm.prices import prices_of
from ops.cost import CostReport, as_table, read_costs
from ops.settings import Settings

ROWS = [
    CostRow("t2", 2, 1_000, 50, Decimal("0.300000001"), Decimal("0.1"), Decimal(0)),
    CostRow("t1", 1, 10, 5, Decimal("0.000000002"), Decimal(0), Decimal("0.01")),
]
REPORT = CostReport("ticket", date(2026, 3, 1), date(2026, 3, 2), ROWS, prices_of())


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        ("yesterday", None, "--since 'yesterday' is no day"),
        (None, "2026-13-01", "--until '2026-13-01' is no day"),
        ("2026-03-02", "2026-03-01", "lies after"),
    ],
)
async def test_a_day_that_is_none_is_said(since: str | None, until: str | None, said: str) -> None:
    with pytest.raises(SupportError, match=said):
        await read_costs("day", since, until, None, Settings())


def test_sums_are_exact() -> None:
    document = REPORT.as_document()
    assert document["total"]["cost_usd"] == "0.300000003"
    assert document["total"]["calls"] == 3
    assert document["rows"][0]["estimated_usd"] == "0.1"
    assert (document["first_day"], document["last_day"]) == ("2026-03-01", "2026-03-02")


def test_nothing_spent_is_a_total_of_nothing() -> None:
    empty = CostReport("day", date(2026, 3, 1), date(2026, 3, 1), [], prices_of())
    assert empty.total() == CostRow("all", 0, 0, 0, Decimal(0), Decimal(0), Decimal(0))


def test_the_table_names_the_price_list_and_its_date() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(as_table(REPORT))
    text = console.export_text()
    assert "genai-prices" in text
    assert "2026-" in prices_of()
    assert "0.300000" in text
