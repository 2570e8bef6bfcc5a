"""Record headers, read with suspicion: a stranger may have written them."""

import contextlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from contracts.errors import Undecodable

_IDENTIFIER = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")  # as `contracts.values.Identifier`, which is slower
_UTC_TEXT = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?(Z|\+00:00)")  # as most write it
_INSTANT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Headers:
    """A record's headers by name; of several with one name the last counts."""

    def __init__(self, headers: Iterable[tuple[str, bytes | None]]) -> None:
        self._values = dict(headers)

    def identifier(self, name: str) -> str | None:
        """A short text without control characters. Raises Undecodable: it is something else."""
        value = self._values.get(name)
        if value is None:
            return None
        text = value.decode("utf-8", "surrogateescape")
        if not _IDENTIFIER.fullmatch(text):
            raise Undecodable(f"the header {name} is not a short text")
        return text

    def instant(self, name: str) -> datetime | None:
        """A time in UTC. Raises Undecodable: it is not ISO 8601 with an offset."""
        value = self._values.get(name)
        if value is None:
            return None
        if _UTC_TEXT.fullmatch(value):
            with contextlib.suppress(ValueError):  # a day that is none: told below
                return datetime.fromisoformat(value.decode())
        text = self.identifier(name)
        try:
            return in_utc(_INSTANT.validate_strings(text), name)
        except ValidationError as error:
            raise Undecodable(f"the header {name} is not a time with an offset") from error

    def traceparent(self) -> str | None:
        """The W3C trace context; a malformed one is dropped, as its specification asks."""
        value = (self._values.get("traceparent") or b"").decode("ascii", "replace")
        return value if _TRACEPARENT.fullmatch(value) else None


def in_utc(moment: datetime, name: str) -> datetime:
    """The same moment in UTC. Raises Undecodable: it lies outside what a datetime can hold."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise Undecodable(f"{name} is out of range") from error


def text_of(moment: datetime) -> str:
    """A moment as headers carry it: ISO 8601, UTC."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat().removesuffix("+00:00") + "Z"
