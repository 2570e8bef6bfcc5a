import io
from typing import Any

import pytest
from rich.console import Console

from ops.demo.report import DemoReport, Row


def outcome(**changed: Any) -> dict[str, Any]:
    return {
        "label": "cancel_order",
        "disposition": "acted",
        "agent": "effects",
        "actions": [{"kind": "cancel_pending_order", "order_id": "#W1", "amount": 12.5}],
        "reply": "Done.",
        "reason": "",
        "cost_usd": 0.25,
        **changed,
    }


def row(count: int = 1, **changed: Any) -> Row:
    return Row.of("a cancellation", "t1", 2, [outcome(**changed)] * count, {("t1", 2): 1.5})


def test_a_row_tells_who_settled_what_and_what_was_done() -> None:
    assert (row().settled_by, row().done) == ("effects", "cancel_pending_order #W1 $12.50")
    assert row(disposition="escalated").settled_by == "a person"


@pytest.mark.parametrize("count", [0, 2])
def test_the_demo_passes_only_when_every_round_has_exactly_one_outcome(count: int) -> None:
    assert DemoReport([row()], 1.0).passed
    assert not DemoReport([row(), row(count)], 1.0).passed


@pytest.mark.parametrize("width", [100, 150, 220])
def test_the_table_fits_its_console_and_ends_with_the_totals(width: int) -> None:
    written = io.StringIO()
    DemoReport([row(reply="long " * 90, actions=[])], 1.0).print(Console(file=written, width=width))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "needs_customer" not in written.getvalue()
    assert "1 tickets, 1 rounds" in lines[-1] or "1 tickets, 1 rounds" in lines[-2]
    assert any("t1 #2" in line and "0.25000" in line for line in lines)
