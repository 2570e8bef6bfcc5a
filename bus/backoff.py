"""How long to wait before a try again, and when to give up."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from contracts.errors import Outage, Transient

T = TypeVar("T")

_log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 300.0  # whatever a provider asks for
_OUTAGE_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.0)  # the last one for ever: work is back within 2 s


def retry_wait_s(delays_s: Sequence[float], attempts: int, error: Transient) -> float | None:
    """Seconds to wait after so many failed tries, jittered; None when they are spent.

    Never less than what a provider asked for.
    """
    if attempts > len(delays_s):
        return None
    delay_s = delays_s[attempts - 1]
    if error.retry_after_s is not None:
        delay_s = max(delay_s, min(error.retry_after_s, _LONGEST_WAIT_S))
        return delay_s + random.uniform(0, delay_s / 10)
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
