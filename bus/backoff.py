"""How long to wait before a try again, and when to give up."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from contracts.errors import Outage, Transient, VersionConflict

T = TypeVar("T")

_log = logging.getLogger(__name__)
_CONFLICTS = 10  # how often a step is decided again on fresh state
_LONGEST_WAIT_S = 300.0  # whatever a provider asks for
_OUTAGE_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)  # the last one for ever


class Patience:
    """The waits of one delivery: bounded for failures and lost races, without end for an outage."""

    def __init__(self, delays_s: Sequence[float]) -> None:
        self._delays_s = iter(delays_s)
        self._conflicts = 0
        self._outages = 0

    def wait_s(self, error: Transient) -> float | None:
        """Seconds to wait after this error, jittered; None when the tries are spent."""
        match error:
            case Outage():
                self._outages += 1
                return outage_wait_s(self._outages)
            case VersionConflict():
                self._conflicts += 1
                return random.uniform(0, 0.01 * self._conflicts) if self._conflicts <= _CONFLICTS else None
            case _:
                return self._next_delay_s(error)

    def _next_delay_s(self, error: Transient) -> float | None:
        delay_s = next(self._delays_s, None)
        if delay_s is None:
            return None
        if error.retry_after_s is not None:
            return min(error.retry_after_s, _LONGEST_WAIT_S) + random.uniform(0, delay_s / 10)
        return random.uniform(delay_s / 2, delay_s)


def outage_wait_s(nth: int) -> float:
    """Seconds to wait after the nth failure in a row of a dependency that is away, jittered."""
    longest = _OUTAGE_WAITS_S[min(nth, len(_OUTAGE_WAITS_S)) - 1]
    return random.uniform(longest / 2, longest)


async def outlast(call: Callable[[], Awaitable[T]]) -> T:
    """The call's result, however long its dependency is away."""
    outages = 0
    while True:
        try:
            return await call()
        except Outage as error:
            outages += 1
            if outages == 1:
                _log.warning("waiting for a dependency: %s", error)
            await asyncio.sleep(outage_wait_s(outages))
