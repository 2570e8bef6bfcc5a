"""Times on the command line."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import SupportError
from ops.moments import moment

NOW = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2026-11-21T14:05:00Z", NOW),
        ("2026-11-21T15:05:00+01:00", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        (" 15m ", NOW - timedelta(minutes=15)),
        ("-2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
    ],
)
def test_a_time_is_given_with_its_offset_or_as_how_long_ago(given: str, meant: datetime) -> None:
    found = moment(given, now=NOW)
    assert (found, found.tzinfo) == (meant, UTC)


@pytest.mark.parametrize(
    "given", ["", "yesterday", "2026-11-21T14:05:00", "5", "5w", "999999999d", "1e3s", "0001-01-01T00:00:00+23:00"]
)
def test_what_is_no_time_is_refused_with_what_would_be_one(given: str) -> None:
    with pytest.raises(SupportError, match="is no time; write it like 2026-11-21T14:05:00Z, or how long ago"):
        moment(given, now=NOW)
