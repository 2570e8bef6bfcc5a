import asyncio
from types import SimpleNamespace

from bus.closing import close_consumer


class Client:
    """aiokafka's client, as far as closing needs it."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Consumer:
    """A consumer whose fetcher was at rest after a failure: awaiting what it cancels raises what that raises."""

    def __init__(self) -> None:
        self._client = Client()
        self._coordinator = SimpleNamespace()
        self._fetcher = SimpleNamespace(_fetch_task=asyncio.create_task(asyncio.Event().wait()))

    async def stop(self) -> None:
        resting = asyncio.create_task(asyncio.Event().wait())
        resting.cancel()
        await resting


async def test_a_cancellation_inside_aiokafka_does_not_cancel_the_worker() -> None:
    """`stop()` of a consumer whose fetch had failed ended the process: it passes on what it cancelled itself."""
    consumer = Consumer()
    await close_consumer(consumer)  # type: ignore[arg-type]
    assert consumer._client.closed
    assert consumer._fetcher._fetch_task.cancelled()


async def test_closing_can_be_cancelled_from_outside() -> None:
    consumer = Consumer()
    consumer.stop = asyncio.Event().wait  # type: ignore[assignment, method-assign]
    closing = asyncio.create_task(close_consumer(consumer))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing], timeout=3)
    assert closing.cancelled()
    consumer._fetcher._fetch_task.cancel()
