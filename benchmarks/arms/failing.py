"""Handlers that fail as models do: which events, how often, and how late their retries came."""

import time
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from contracts.errors import ModelOverloaded, ModelRefused
from contracts.ports import Parking, Record

FAIL_OF_1000 = 100
POISON_OF_1000 = 10
WAITS_S = (1.0, 5.0, 30.0)


def poisoned(event_id: str) -> bool:
    """Whether an event fails for ever."""
    return crc32(event_id.encode()) % 1000 < POISON_OF_1000


class Failing:
    """Fails some events once and others always. The waits it asks for are scaled."""

    def __init__(self, scale: float) -> None:
        self.parking = NotedDueTimes()
        self._scale = scale
        self._failed: set[str] = set()
        self._lateness_ms: list[float] = []

    def try_again(self, event_id: str) -> None:
        """Raise ModelRefused for poison, ModelOverloaded for what fails once; note how late a second try is."""
        number = crc32(event_id.encode()) % 1000
        if number < POISON_OF_1000:
            raise ModelRefused("poison")
        if number >= POISON_OF_1000 + FAIL_OF_1000:
            return
        if event_id not in self._failed:
            self._failed.add(event_id)
            raise ModelOverloaded("busy", retry_after_s=WAITS_S[number % len(WAITS_S)] * self._scale)
        due_at = self.parking.due_at.pop(event_id, None)
        if due_at is not None:
            self._lateness_ms.append((time.monotonic() - due_at) * 1e3)

    def figures(self) -> dict[str, float]:
        """What came of the retries."""
        late = sorted(self._lateness_ms)
        return {
            "retries": len(late),
            "lateness p99 ms": late[int(len(late) * 0.99)] if late else 0.0,
            "early": sum(one < 0 for one in late),
        }


class NotedDueTimes:
    """Notes when each parked event falls due, as seen from here."""

    def __init__(self) -> None:
        self.due_at: dict[str, float] = {}

    def around(self, parking: Parking) -> Parking:
        """The same parking, its park calls noted."""
        return _Noting(parking, self.due_at)


class _Noting:
    def __init__(self, parking: Parking, due_at: dict[str, float]) -> None:
        self._parking = parking
        self._due_at = due_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parking, name)

    async def park(
        self, group: str, ticket_id: str, record: Record, *, wait_s: float, attempts: int, error: str
    ) -> None:
        # From before the call: the database's own due time is not earlier, so nothing is called late too kindly,
        # and what comes before this moment is early by any clock.
        self._due_at[_event_id(record.headers)] = time.monotonic() + wait_s
        await self._parking.park(group, ticket_id, record, wait_s=wait_s, attempts=attempts, error=error)


def _event_id(headers: Sequence[tuple[str, bytes | None]]) -> str:
    return next((value for name, value in headers if name == "ce_id" and value is not None), b"").decode()
