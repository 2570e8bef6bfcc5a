import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from bus.loop_lag import LoopLag
from tests.system.kit import until

LIMIT_S = 10.0
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run


class Measured:
    """A loop whose lag is measured, and what the metric says of it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.lag = LoopLag("lookup", every_s=0.02, meter=MeterProvider([self._reader]).get_meter("test"))

    def point(self) -> HistogramDataPoint | None:
        data = self._reader.get_metrics_data()
        if data is None:
            return None
        [metric] = data.resource_metrics[0].scope_metrics[0].metrics
        assert (metric.name, metric.unit) == ("switchyard.loop.lag", "s")
        [point] = metric.data.data_points
        assert isinstance(point, HistogramDataPoint)
        return point

    async def until_timers(self, count: int) -> None:
        """Let the loop run until so many more timers are measured."""
        enough = self._count() + count

        async def measured() -> bool:
            return self._count() >= enough

        await until(measured, "another timer", LIMIT_S)

    def _count(self) -> int:
        point = self.point()
        return point.count if point else 0


def a_slow_handler(seconds: float) -> None:
    time.sleep(seconds)


@contextlib.asynccontextmanager
async def measuring() -> AsyncIterator[Measured]:
    """A measurement under way."""
    measured = Measured()
    task = asyncio.create_task(measured.lag.run())
    await measured.until_timers(1)
    yield measured
    await measured.until_timers(2)
    task.cancel()
    await asyncio.wait([task])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_blocked_loop_is_reported_once_with_the_agent_and_the_blocking_function(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def blocked() -> Measured:
        async with measuring() as measured:
            a_slow_handler(0.8)
        return measured

    measured = run(blocked())
    [warning] = warnings(caplog)
    assert "the event loop of lookup" in warning
    assert re.search(r"in bus/test_loop_lag\.py:\d+ a_slow_handler < ", warning)
    point = measured.point()
    assert point is not None
    assert point.min < 0.7 < point.max
    assert point.attributes == {"agent": "lookup"}


def test_each_blockage_is_reported(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def twice() -> None:
        async with measuring() as measured:
            a_slow_handler(0.4)
            await measured.until_timers(2)
            a_slow_handler(0.4)

    run(twice())
    assert len(warnings(caplog)) == 2


def test_a_loop_that_is_busy_and_never_blocked_is_not_reported(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def busy() -> None:
        async with measuring() as measured:
            enough = asyncio.create_task(measured.until_timers(10))
            while not enough.done():
                a_slow_handler(0.02)
                await asyncio.sleep(0)

    run(busy())
    assert warnings(caplog) == []
