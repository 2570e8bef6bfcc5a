"""Times as people give them on the command line."""

import re
from datetime import UTC, datetime, timedelta

from contracts.errors import SupportError

_AGO = re.compile(r"-?(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(given: str, *, now: datetime) -> datetime:
    """A time in UTC, of one such as 2026-11-21T14:05:00Z, or of how long ago: 90s, 15m, 2h, 3d.

    Raises SupportError: it is neither.
    """
    text = given.strip()
    try:
        if match := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise SupportError(f"{given!r} is no time; write it like 2026-11-21T14:05:00Z, or how long ago: 15m, 2h, 3d")
