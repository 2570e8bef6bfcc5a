"""Times as people give them on the command line."""

import contextlib
import re
from datetime import UTC, datetime, timedelta

from contracts.errors import SupportError

_AGO = re.compile(r"-?(\d{1,9})([smhd])")
_OFFSETS = re.compile(r"\d{1,9}:\d{1,18}(,\d{1,9}:\d{1,18})*")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def by_partition(given: str) -> dict[int, int] | None:
    """Offsets by partition, of a text such as 0:17,3:4; None: it is none."""
    if not _OFFSETS.fullmatch(given):
        return None
    return {int(partition): int(offset) for partition, _, offset in (one.partition(":") for one in given.split(","))}


def ago(given: str, *, now: datetime) -> datetime | None:
    """A time that is told by how long ago it was: 90s, 15m, -2h, 3d; None: it is none."""
    match = _AGO.fullmatch(given)
    try:
        return match and now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        return None


def moment(given: str, *, now: datetime) -> datetime:
    """A time in UTC, of one such as 2026-11-21T14:05:00Z, or of how long ago: 90s, 15m, 2h, 3d.

    Raises SupportError: it is neither.
    """
    text = given.strip()
    if at := ago(text, now=now):
        return at
    with contextlib.suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    raise SupportError(f"{given!r} is no time; write it like 2026-11-21T14:05:00Z, or how long ago: 15m, 2h, 3d")
