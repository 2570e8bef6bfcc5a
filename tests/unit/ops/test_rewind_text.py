"""How the book of rewinds is told."""

from dataclasses import replace
from datetime import UTC, datetime

from contracts.rewinds import NotedRewind
from ops.rewind_cli import past_as_text

BEGUN = datetime(2026, 1, 31, 9, 5, tzinfo=UTC)


def test_a_rewind_of_the_book_says_who_why_from_where_to_where_and_whether_it_was_done() -> None:
    begun = NotedRewind("triage", "support.tickets.v1", "mia", "a bug in 1.2", {3: (7, 5), 0: (10, 0)}, begun_at=BEGUN)
    assert past_as_text(begun) == (
        "2026-01-31 09:05:00  triage by mia: a bug in 1.2\n  begun and not done; 0: 10 -> 0, 3: 7 -> 5"
    )
    done = replace(begun, reason="", moves={}, again=True, rounds={"again": 3, "acted": 1}, moved_at=BEGUN)
    assert past_as_text(done) == "2026-01-31 09:05:00  triage by mia\n  done, 3 again, 1 acted; no partition moved"
