"""What model calls cost: by ticket, agent, tenant or day, from the book of calls."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.table import Table

from contracts.errors import SupportError
from contracts.model_ports import CostRow
from llm.prices import prices_of
from ops.settings import Settings
from ops.usage import alert_record, usage_record
from ops.wiring import database
from state.model_calls import PostgresModelCalls

_DAYS = 30


@dataclass(frozen=True, slots=True)
class CostReport:
    """Rows, dearest first, and from when the price list is."""

    by: str
    first: date
    last: date
    rows: list[CostRow]
    prices_of: str

    def total(self) -> CostRow:
        """All rows together."""
        sums = [sum(column) for column in zip(*(row[1:] for row in self.rows), strict=True)] or [0, 0, 0, 0, 0, 0]
        return CostRow("all", int(sums[0]), int(sums[1]), int(sums[2]), *(Decimal(one) for one in sums[3:]))

    def as_document(self) -> dict[str, Any]:
        """The report as JSON values; money as decimal text, exact."""
        return {
            "by": self.by,
            "first_day": self.first.isoformat(),
            "last_day": self.last.isoformat(),
            "prices_of": self.prices_of,
            "rows": [_document(row) for row in self.rows],
            "total": _document(self.total()),
        }


async def read_costs(
    by: str, since: str | None, until: str | None, ticket_id: str | None, settings: Settings
) -> CostReport:
    """The costs of some days. Raises SupportError: a day that is none."""
    last = _day("--until", until) if until else datetime.now(UTC).date()
    first = _day("--since", since) if since else last - timedelta(days=_DAYS)
    if first > last:
        raise SupportError(f"--since {first} lies after --until {last}")
    async with database(settings) as pool:
        book = PostgresModelCalls(pool, usage_record, alert_record)
        rows = await book.costs(by, first, last, ticket_id=ticket_id)
    return CostReport(by, first, last, rows, prices_of())


def as_table(report: CostReport) -> Table:
    """The report for a terminal."""
    table = Table(
        title=f"Model calls by {report.by}, {report.first} to {report.last} (UTC)",
        caption=f"Prices of {report.prices_of}. Estimated: the provider did not say what a call used.",
    )
    table.add_column(report.by)
    for name in ("calls", "input tokens", "output tokens", "USD", "of it estimated", "held"):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(report.total()), style="bold")
    return table


def _cells(row: CostRow) -> list[str]:
    money = (f"{row.cost_usd:.6f}", f"{row.estimated_usd:.6f}", f"{row.open_usd:.6f}")
    return [row.key, f"{row.calls:,}", f"{row.input_tokens:,}", f"{row.output_tokens:,}", *money]


def _document(row: CostRow) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in row._asdict().items()}


def _day(option: str, given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise SupportError(f"{option} {given!r} is no day; write it like 2026-03-31") from None
