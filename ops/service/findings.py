"""What the doctor finds."""

from dataclasses import dataclass
from enum import IntEnum

MOST_SKEW_S = 2.0  # between two clocks before it is worth a word


class Severity(IntEnum):
    """How bad it is; the exit code of `switchyard doctor` follows the worst."""

    FINE = 0
    WARNING = 1  # it works, but not as it should, or not for long
    FAULT = 2  # something does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend`: the command or setting that mends it."""

    severity: Severity
    about: str
    says: str
    mend: str = ""


def ago(seconds: float) -> str:
    """A span as people say it."""
    for unit, length_s in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
