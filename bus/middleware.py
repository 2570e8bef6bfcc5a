"""What surrounds a handler: one concern each, composed in one list (`bus.pipeline`)."""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from bus.backoff import outage_wait_s, retry_wait_s
from bus.delivery import Delivery
from bus.handler import Handler, Middleware
from bus.outcome import DUPLICATE, DeadLetter, Later, Outcome
from bus.tracing import trace_id_of
from contracts.errors import Deferred, Misconfigured, Outage, Permanent, SupportError, Transient

_log = logging.getLogger(__name__)


class DeadlinePassed(Permanent):
    """The delivery's time limit passed before its step was decided."""


def compose(handler: Handler, *outermost_first: Middleware) -> Handler:
    """Wrap the handler; the first middleware named sees the delivery first."""
    for middleware in reversed(outermost_first):
        handler = functools.partial(middleware, handler)
    return handler


async def judged(call_next: Handler, delivery: Delivery) -> Outcome:
    """Turn an error into a dead letter. What is not a SupportError is a bug; Misconfigured ends the worker."""
    try:
        return await call_next(delivery)
    except Misconfigured:
        raise
    except SupportError as error:
        _log.warning("dead letter at %s: %s", delivery.position, type(error).__name__)
        return DeadLetter(error, trace_id_of(delivery))
    except Exception as error:  # noqa: BLE001 - no record may stop its partition
        _log.exception("a bug at %s", delivery.position)
        return DeadLetter(error, trace_id_of(delivery))


async def decoded(call_next: Handler, delivery: Delivery) -> Outcome:
    """Let only events pass. Raises Undecodable: the record holds none."""
    _ = delivery.event
    return await call_next(delivery)


def deduplicated(handled_in_lane: Callable[[Delivery], bool]) -> Middleware:
    """Skip an event that was settled while this delivery of it waited in its lane: a look-up came too early."""

    async def middleware(call_next: Handler, delivery: Delivery) -> Outcome:
        if handled_in_lane(delivery):
            return DUPLICATE
        return await call_next(delivery)

    return middleware


def within_deadline(expired: Handler) -> Middleware:
    """Bound all tries together by the delivery's limit; past it, `expired` decides the delivery instead.

    The limit cuts a decision or a wait short, never the settling of a step that is decided.
    """

    async def middleware(call_next: Handler, delivery: Delivery) -> Outcome:
        try:
            if not is_past(delivery.limit):
                return await call_next(delivery)
        except DeadlinePassed:
            _log.info("the deadline passed at %s", delivery.position)
        limit, delivery.limit = delivery.limit, None
        try:
            return await expired(delivery)
        finally:
            delivery.limit = limit  # it has expired too when its step is decided again

    return middleware


def retried(delays_s: Sequence[float], *, longest_in_place_s: float) -> Middleware:
    """Repeat a Transient failure: after a short wait in place, so that order holds; after a longer one later.

    Raises the last error when the tries are spent. An outage spends none, and is waited out here; what is deferred
    spends none either, and is parked.
    """

    async def middleware(call_next: Handler, delivery: Delivery) -> Outcome:
        outages = 0
        while True:
            try:
                return await call_next(delivery)
            except Outage as error:
                outages += 1
                wait_s: float | None = outage_wait_s(outages)
                reason: Transient = error
            except Deferred as error:
                return Later(error, _no_longer_than(error.retry_after_s or 0.0, delivery.limit))
            except Transient as error:
                delivery.attempts += 1
                wait_s = retry_wait_s(delays_s, delivery.attempts, error)
                reason = error
            except Exception:
                delivery.attempts += 1
                raise
            if wait_s is None:
                raise reason
            _log.info("trying again at %s in %.2f s: %s", delivery.position, wait_s, type(reason).__name__)
            if wait_s > longest_in_place_s:
                return Later(reason, _no_longer_than(wait_s, delivery.limit))
            await sleep_within(wait_s, delivery.limit)

    return middleware


def is_past(limit: datetime | None) -> bool:
    """Whether a limit is over."""
    return limit is not None and seconds_until(limit) <= 0


def seconds_until(limit: datetime) -> float:
    """Seconds left, negative when it is past."""
    return (limit - datetime.now(UTC)).total_seconds()


async def sleep_within(wait_s: float, limit: datetime | None) -> None:
    """Sleep, but not past the limit. Raises DeadlinePassed: the limit came first."""
    if limit is None or wait_s < seconds_until(limit):
        await asyncio.sleep(wait_s)
        return
    await asyncio.sleep(max(0.0, seconds_until(limit)))
    raise DeadlinePassed("the deadline passed before the next try")


def _no_longer_than(wait_s: float, limit: datetime | None) -> float:
    return wait_s if limit is None else max(0.0, min(wait_s, seconds_until(limit)))
