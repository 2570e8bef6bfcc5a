"""The parts of a replay that need no service."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from bus.window import Bound
from contracts.errors import Misconfigured
from contracts.events import CustomerReplied, Event, TicketSubmitted
from contracts.ports import Position
from contracts.ticket import Ticket
from ops.replay.answers import Bill
from ops.replay.compare import Compared, compared
from ops.replay.gold import judged, read_gold
from ops.replay.inputs import plan
from ops.replay.page import as_html
from ops.replay.report import Report, as_table
from ops.replay.run import Emitted, NewStep, Rerun
from ops.replay.service import bound
from ops.replay_cli import show
from state.past import Life, PastEvent, PastStep

THEN = datetime(2026, 1, 31, 9, tzinfo=UTC)
DECISION = {
    "ticket_id": "t1",
    "round": 1,
    "label": "order_status",
    "disposition": "answered",
    "actions": [],
    "reply": "It is on its way.",
    "reason": "",
    "orders": [],
    "agent": "lookup",
    "agent_version": "one",
    "cost_usd": 0.1,
}


def step(event_id: str, type_: str, *emits: PastEvent, group: str = "triage", minute: int = 0) -> PastStep:
    began = THEN + timedelta(minutes=minute)
    return PastStep("t1", group, event_id, type_, Position("x", 0, 0), began, 0.0, Decimal(0), 0, emits)


def outcome(event_id: str = "o1", cause: str = "l1", **changes: Any) -> PastEvent:
    return PastEvent(event_id, "TicketResolved", DECISION | changes, "lookup", cause)


def handoff() -> PastEvent:
    return PastEvent("l1", "LookupRequested", {"ticket_id": "t1", "round": 1}, "triage", "e1")


def ticket(*messages: Event) -> Ticket:
    found = Ticket(ticket_id="t1", tenant_id="north")
    for message in messages:
        found = found.open_round(message)
    return found


def message(event_id: str = "e1", **more: Any) -> Event:
    data = TicketSubmitted(
        ticket_id="t1", tenant_id="north", from_email="ada@example.com", subject="Where", body="Where is it?", **more
    )
    return Event(event_id, "shop", THEN, data)


def follow_up() -> Event:
    data = CustomerReplied(ticket_id="t1", tenant_id="north", body="And now?")
    return Event("e2", "shop", THEN, data)


def life() -> Life:
    """A message, its lookup and its outcome; a follow-up that opened a second round."""
    steps = (
        step("e1", "TicketSubmitted", handoff()),
        step("l1", "LookupRequested", outcome(), group="lookup", minute=1),
        step("e2", "CustomerReplied", minute=5),
    )
    return Life(ticket(message(order_ref="#W1"), follow_up()), steps, (handoff(), outcome()))


def test_a_message_that_kafka_no_longer_has_is_made_of_the_round_it_opened() -> None:
    found = plan(life(), {"e2"}, {"e2": follow_up()})
    assert found is not None
    first, second = found.inputs
    assert isinstance(first.event.data, TicketSubmitted)
    assert (first.event.id, first.began, first.group) == ("e1", THEN, "triage")
    written = message(order_ref="#W1").data.model_dump()
    assert first.event.data.model_dump(exclude={"message_id"}) == {
        k: v for k, v in written.items() if k != "message_id"
    }
    assert not ticket(message(order_ref="#W1")).already_submitted(first.event.data)
    assert second.event == follow_up()


def test_messages_after_the_window_and_what_came_of_them_are_left_out() -> None:
    found = plan(life(), {"l1"}, {})
    assert found is not None
    assert [one.event.id for one in found.inputs] == ["e1"]
    assert set(found.steps) == {("triage", "e1"), ("lookup", "l1")}


def test_a_window_that_nobody_has_handled_yet_is_no_plan() -> None:
    assert plan(life(), {"e9"}, {}) is None


def rerun(*steps: NewStep, window: str = "e1") -> Rerun:
    found = plan(life(), {window}, {})
    assert found is not None
    return Rerun(found, list(steps))


def now(past: PastStep, *, by_candidate: bool = True, emits: tuple[Emitted, ...] | None = None, **more: Any) -> NewStep:
    same = tuple(Emitted(event.event_id, event.type, event.payload) for event in past.emits)
    return NewStep(past.group, past.event_id, past.type, by_candidate, same if emits is None else emits, Bill(), **more)


def answered(**changes: Any) -> tuple[Emitted, ...]:
    return (Emitted("o1", "TicketResolved", DECISION | changes),)


def test_what_differs_by_nature_is_no_difference() -> None:
    first, second, _ = life().steps
    found = compared(rerun(now(first), now(second, emits=answered(cost_usd=0.0, agent_version="two"))))
    assert (found.status, found.differences, found.decisions[0].changed) == ("same", (), ())


def test_the_first_step_that_differs_is_named_with_what_differs() -> None:
    first, second, _ = life().steps
    found = compared(rerun(now(first), now(second, emits=answered(reply="Lost.", disposition="refused"))))
    assert found.status == "different"
    [difference] = found.differences
    assert (difference.group, difference.event_id) == ("lookup", "l1")
    assert difference.what == ("TicketResolved.disposition", "TicketResolved.reply")
    assert found.decisions[0].changed == ("disposition", "reply")


def test_a_handoff_elsewhere_loses_one_step_and_brings_another() -> None:
    first, _, _ = life().steps
    elsewhere = (Emitted("l1", "ReasoningRequested", {"round": 1}),)
    found = compared(
        rerun(now(first, emits=elsewhere), NewStep("reasoning", "l1", "ReasoningRequested", True, (), Bill()))
    )
    assert [one.what for one in found.differences] == [
        ("no longer LookupRequested", "now ReasoningRequested"),
        ("a step that there was not",),
        ("no such step any more",),
    ]
    assert found.decisions[0].changed == ("outcome",)


def test_a_difference_before_the_window_is_not_the_candidates() -> None:
    first, second, _ = life().steps
    found = compared(rerun(now(first, by_candidate=False, emits=()), now(second), window="l1"))
    assert found.status == "unseeded"
    assert (len(found.seed_differences), found.differences) == (1, ())


def test_a_missing_answer_is_worse_than_any_difference() -> None:
    first, _, _ = life().steps
    found = compared(rerun(now(first, emits=(), is_missing=True, problem="RecordingMissing: nothing is recorded")))
    assert (found.status, found.missing) == ("missing", "RecordingMissing: nothing is recorded")


def changed_ticket(**changes: Any) -> Compared:
    first, second, _ = life().steps
    return compared(rerun(now(first), now(second, emits=answered(**changes))))


def test_gold_tells_regressions_from_improvements(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"ticket_id": "t1", "disposition": "answered"}\n\n{"ticket_id": "t2", "label": "account"}\n')
    better = replace(changed_ticket(label="account"), ticket_id="t2")
    report = judged([changed_ticket(disposition="refused"), better], read_gold(gold))
    assert (report.judged, report.right_before, report.right_now) == (2, 1, 1)
    assert (report.regressions, report.improvements) == (("t1",), ("t2",))


def test_a_gold_line_that_says_nothing_is_named(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"ticket_id": "t1", "label": "account"}\n{"ticket_id": "t2"}\n')
    with pytest.raises(Misconfigured, match=r"gold\.jsonl line 2 is not an object with ticket_id"):
        read_gold(gold)


def test_the_page_stands_alone_and_escapes_what_strangers_wrote() -> None:
    ticket_ = changed_ticket(reply="<script>alert(1)</script>")
    page = as_html(Report("a window", "the code", [ticket_], 1, 0, 0, ["<b>"], 0.1, 1.0))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http" not in page
    assert "src=" not in page


def report_on(*tickets: Compared) -> Report:
    return Report("a window", "the code", tickets, len(tickets), 0, 0, (), 0.1, 1.0)


def exit_code(report: Report, *, fail_on_diff: bool) -> int:
    try:
        show(report, None, fail_on_diff, True)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def test_a_difference_fails_the_command_only_when_asked_and_a_missing_answer_always() -> None:
    first, _, _ = life().steps
    missing = compared(rerun(now(first, emits=(), is_missing=True, problem="RecordingMissing: nothing")))
    same, different = changed_ticket(), changed_ticket(reply="Lost.")
    assert exit_code(report_on(same), fail_on_diff=True) == 0
    assert exit_code(report_on(same, different), fail_on_diff=False) == 0
    assert exit_code(report_on(same, different), fail_on_diff=True) == 1
    assert exit_code(report_on(same, missing), fail_on_diff=False) == 1


def test_the_document_tells_totals_and_each_ticket(capsys: pytest.CaptureFixture[str]) -> None:
    show(report_on(changed_ticket(), changed_ticket(reply="It is lost.")), None, False, True)
    document = json.loads(capsys.readouterr().out)
    assert document["totals"] == {"tickets": 2, "same": 1, "different": 1, "missing": 0, "failed": 0, "unseeded": 0}
    changed = document["tickets"][1]
    assert changed["differs_from"]["what"] == ["TicketResolved.reply"]
    assert changed["decisions"][0]["reply_diff"] == ["@@ -1 +1 @@", "-It is on its way.", "+It is lost."]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("earliest", Bound()),
        ("latest", Bound(latest=True)),
        ("17", Bound(offset=17)),
        ("0:17,3:4", Bound(offsets={0: 17, 3: 4})),
        ("-2h", Bound(time=THEN - timedelta(hours=2))),
        ("2026-01-31T09:00", Bound(time=THEN)),
        ("2026-01-31T10:00+01:00", Bound(time=THEN)),
    ],
)
def test_a_window_begins_and_ends_at_what_is_said(text: str, wanted: Bound) -> None:
    assert bound(text, "--from", lambda: THEN) == wanted


def test_a_bound_that_cannot_be_read_names_the_option_and_what_can() -> None:
    with pytest.raises(Misconfigured, match="--from 'yesterday' is none of: earliest, latest"):
        bound("yesterday", "--from")


def printed(report: Report, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_table(report))
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_shows_totals_first_then_why_tickets_stopped_then_what_changed(width: int) -> None:
    first, _, _ = life().steps
    missing = compared(rerun(now(first, emits=(), is_missing=True, problem="RecordingMissing: nothing is recorded")))
    many = [replace(changed_ticket(reply="Lost."), ticket_id=f"t{n}") for n in range(150)]
    lines = printed(report_on(changed_ticket(), *[missing] * 12, *many), width)
    assert lines[1].strip() == "163 tickets: 1 same, 150 different, 12 missing"
    assert sum("missing: RecordingMissing: nothing is recorded" in line for line in lines) == 10
    assert "150 differ from lookup on LookupRequested: TicketResolved.reply" in " ".join(map(str.strip, lines))
    assert sum("lookup: reply" in line for line in lines) == 100
    assert [line.split(":")[0] for line in lines if line.startswith("and")] == ["and 2 more", "and 50 more"]
    assert max(map(len, lines)) <= width


def test_the_page_shows_changes_first_and_marks_the_words_that_differ() -> None:
    page = as_html(report_on(changed_ticket(), changed_ticket(reply="It is <lost> way.")))
    assert page.index("Where they begin to differ") < page.index("<details")
    assert "It is <del>on its </del>way." in page
    assert "It is <ins>&lt;lost&gt; </ins>way." in page
    assert 'id="only-changed" checked> changed (1)' in page
    assert 'id="only-all"> all (2)' in page
    assert page.count('class="ticket row plain is-same"') == 1
    unchanged = as_html(report_on(changed_ticket()))
    assert 'id="only-all" checked> all (1)' in unchanged
