import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from bus.delivery import Delivery
from bus.handler import Handler, Middleware
from bus.middleware import (
    DeadlinePassed,
    compose,
    decoded,
    deduplicated,
    judged,
    retried,
    within_deadline,
)
from bus.outcome import DUPLICATE, DeadLetter, Done, Duplicate, Later, Outcome
from contracts.errors import (
    ContractBroken,
    Deferred,
    Misconfigured,
    ModelOverloaded,
    ModelUnavailable,
    Permanent,
    StoreUnavailable,
    Undecodable,
)
from contracts.events import LookupRequested
from tests.unit.bus.kit import cancel_order, delivery, event


def failing(*errors: Exception) -> tuple[Handler, list[float]]:
    """A handler that raises these, one a call, then is done; and when it was called."""
    calls: list[float] = []
    coming = list(errors)

    async def handle(delivery: Delivery) -> Outcome:
        calls.append(time.monotonic())
        if coming:
            raise coming.pop(0)
        return Done()

    return handle, calls


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def in_place(delays_s: list[float]) -> Middleware:
    return retried(delays_s, longest_in_place_s=100)


async def expired(delivery: Delivery) -> Outcome:
    return Duplicate()


async def test_the_first_middleware_named_sees_the_delivery_first() -> None:
    seen = []

    def noting(name: str) -> Callable[..., object]:
        async def middleware(call_next: Handler, delivery: Delivery) -> Outcome:
            seen.append(name)
            return await call_next(delivery)

        return middleware

    handle, _ = failing()
    await compose(handle, noting("outer"), noting("inner"))(delivery())  # type: ignore[arg-type]
    assert seen == ["outer", "inner"]


@pytest.mark.parametrize("error", [ContractBroken("no"), ValueError("a bug"), ModelUnavailable("gone")])
async def test_an_error_becomes_a_dead_letter(error: Exception) -> None:
    handle, _ = failing(error)
    assert await compose(handle, judged)(delivery()) == DeadLetter(error)


async def test_a_misconfigured_worker_ends_instead_of_dead_lettering_everything() -> None:
    handle, _ = failing(Misconfigured("no key"))
    with pytest.raises(Misconfigured):
        await compose(handle, judged)(delivery())


async def test_being_cancelled_is_no_outcome() -> None:
    async def cancelled(delivery: Delivery) -> Outcome:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await compose(cancelled, judged)(delivery())


async def test_a_record_that_holds_no_event_is_a_dead_letter_at_once() -> None:
    handle, calls = failing()
    error = Undecodable("not JSON")
    assert await compose(handle, judged, decoded)(delivery(error)) == DeadLetter(error)
    assert not calls


async def test_a_transient_failure_is_tried_again_after_the_delays_given() -> None:
    handle, calls = failing(ModelUnavailable("a"), ModelUnavailable("b"))
    one = delivery()
    assert await compose(handle, in_place([0.1, 0.3]))(one) == Done()
    assert one.attempts == 2
    assert 0.05 <= calls[1] - calls[0] < 0.15
    assert 0.15 <= calls[2] - calls[1] < 0.35


async def test_a_transient_failure_passes_when_the_tries_are_spent() -> None:
    errors = [ModelUnavailable(str(i)) for i in range(3)]
    handle, calls = failing(*errors)
    with pytest.raises(ModelUnavailable, match="2"):
        await compose(handle, in_place([0, 0]))(delivery())
    assert len(calls) == 3


async def test_what_the_provider_asks_for_is_waited_out() -> None:
    handle, calls = failing(ModelOverloaded("429", retry_after_s=0.2))
    await compose(handle, in_place([0.01]))(delivery())
    assert calls[1] - calls[0] >= 0.2


async def test_a_permanent_failure_is_not_tried_again() -> None:
    handle, calls = failing(ContractBroken("no"))
    with pytest.raises(ContractBroken):
        await compose(handle, in_place([0, 0]))(delivery())
    assert len(calls) == 1


async def test_an_outage_spends_no_try_however_often_it_strikes() -> None:
    handle, calls = failing(*[StoreUnavailable("down")] * 4, ModelUnavailable("once"))
    one = delivery()
    assert await compose(handle, in_place([0]))(one) == Done()
    assert len(calls) == 6
    assert one.attempts == 1


async def test_a_long_wait_is_spent_in_the_database_and_not_in_a_slot() -> None:
    error = ModelUnavailable("gone")
    handle, calls = failing(error)
    one = delivery()
    later = await compose(handle, retried([30], longest_in_place_s=2))(one)
    assert isinstance(later, Later)
    assert later.error is error
    assert 15 <= later.wait_s <= 30
    assert (len(calls), one.attempts) == (1, 1)


async def test_what_is_deferred_is_parked_until_its_time_and_spends_no_try() -> None:
    handle, calls = failing(Deferred("the budget is spent", retry_after_s=3600))
    one = delivery()
    one.limit = None
    outcome = await in_place([0.1])(handle, one)
    assert isinstance(outcome, Later)
    assert (outcome.wait_s, one.attempts, len(calls)) == (3600, 0, 1)


async def test_what_is_deferred_is_parked_no_longer_than_its_deadline() -> None:
    handle, _ = failing(Deferred("the budget is spent", retry_after_s=3600))
    one = delivery()
    one.limit = soon(60)
    outcome = await in_place([0.1])(handle, one)
    assert isinstance(outcome, Later)
    assert 55 < outcome.wait_s <= 60


async def test_tries_spent_before_count() -> None:
    """A retry that looks at the header's count alone starts anew for ever (it-at-m/zammad-ai#312)."""
    handle, calls = failing(ModelUnavailable("gone"))
    one = delivery()
    one.attempts = 1
    with pytest.raises(ModelUnavailable):
        await compose(handle, retried([30], longest_in_place_s=2))(one)
    assert len(calls) == 1


async def test_a_long_wait_ends_with_the_deadline() -> None:
    handle, _ = failing(ModelOverloaded("429", retry_after_s=60))
    later = await compose(handle, retried([1], longest_in_place_s=2))(delivery(event(deadline=soon(20))))
    assert isinstance(later, Later)
    assert later.wait_s < 20


async def test_a_wait_is_cut_short_by_the_deadline() -> None:
    handle, calls = failing(ModelOverloaded("429", retry_after_s=60))
    began = time.monotonic()
    with pytest.raises(DeadlinePassed):
        await compose(handle, in_place([1]))(delivery(event(deadline=soon(0.2))))
    assert 0.15 < time.monotonic() - began < 1
    assert len(calls) == 1


async def test_past_its_deadline_a_delivery_is_settled_otherwise_without_being_handled() -> None:
    handle, calls = failing()
    late = delivery(event(deadline=soon(-1)))
    assert await compose(handle, within_deadline(expired))(late) == Duplicate()
    assert not calls


async def test_a_deadline_that_passes_on_the_way_settles_it_otherwise_free_of_the_limit() -> None:
    handle, _ = failing(ModelOverloaded("429", retry_after_s=60))
    limits = []

    async def settle(delivery: Delivery) -> Outcome:
        limits.append(delivery.limit)
        return Done()

    late = delivery(event(deadline=soon(0.1)))
    assert await compose(handle, within_deadline(settle), in_place([1]))(late) == Done()
    assert limits == [None]


async def test_what_has_expired_has_expired_too_when_its_step_is_decided_again() -> None:
    handle, calls = failing()
    late = delivery(event(deadline=soon(-1)))
    handler = compose(handle, within_deadline(expired))
    assert [await handler(late), await handler(late)] == [Duplicate(), Duplicate()]
    assert not calls


async def test_a_permanent_failure_in_time_is_not_a_passed_deadline() -> None:
    handle, _ = failing(ContractBroken("no"))
    with pytest.raises(Permanent, match="no"):
        await compose(handle, within_deadline(expired))(delivery(event(deadline=soon(60))))


async def test_a_command_has_no_deadline() -> None:
    handle, calls = failing()
    command = delivery(event(cancel_order(), deadline=soon(-1)))
    assert await compose(handle, within_deadline(expired))(command) == Done()
    assert len(calls) == 1


async def test_a_handoff_has_one() -> None:
    handle, _ = failing()
    handoff = delivery(event(LookupRequested(ticket_id="t1", round=1), deadline=soon(-1)))
    assert await compose(handle, within_deadline(expired))(handoff) == Duplicate()


async def test_an_event_settled_while_its_copy_waited_behind_it_is_not_handled_again() -> None:
    handle, calls = failing()
    assert await compose(handle, deduplicated(lambda one: True))(delivery()) == DUPLICATE
    assert await compose(handle, deduplicated(lambda one: False))(delivery()) == Done()
    assert len(calls) == 1
