"""A producer that hangs or breaks; `Making` stands for aiokafka's class."""

import asyncio
import time
from typing import Any

import pytest
from aiokafka.errors import OutOfOrderSequenceNumber

from bus import closing, producers
from bus.connection import KafkaConnection
from bus.producers import Producers
from contracts.errors import BusUnavailable

LIMIT_S = 30.0
TIMEOUT_S = 0.05


class Making:
    """Makes producers, of which the test says what they do."""

    def __init__(self) -> None:
        self.made: list[Making.Producer] = []
        self.hang: set[str] = set()  # `start`, `send`, `stop`: what gets no answer

    def __call__(self, **settings: Any) -> "Producer":
        self.made.append(Making.Producer(self, settings))
        return self.made[-1]

    class Producer:
        """One of them."""

        def __init__(self, making: "Making", settings: dict[str, Any]) -> None:
            self.settings = settings
            self.sender_task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
            self.client = self._sender = self
            self._making = making

        async def start(self) -> None:
            await self.answer("start")

        async def stop(self) -> None:
            await self.answer("stop")
            self.sender_task.cancel()

        async def close(self) -> None:
            await self.answer("close")

        async def answer(self, what: str) -> None:
            await asyncio.sleep(0)
            if what in self._making.hang:
                await asyncio.Event().wait()


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Making:
    making = Making()
    monkeypatch.setattr(producers, "AIOKafkaProducer", lambda **settings: making(**settings))
    monkeypatch.setattr(closing, "_PATIENCE_S", 0.05)
    return making


def new_producers() -> Producers:
    return Producers(KafkaConnection("nowhere:1"), TIMEOUT_S)


async def test_it_is_idempotent_and_knows_no_transactions(making: Making) -> None:
    """A transaction whose coordinator moves leaves its producer stuck (aiokafka#1135, #1151); the outbox needs none."""
    await new_producers().current()
    [made] = making.made
    assert made.settings["enable_idempotence"]
    assert made.settings["acks"] == "all"
    assert "transactional_id" not in made.settings


async def test_a_broker_that_never_answers_is_given_up_and_so_is_its_producer(making: Making) -> None:
    """Batches of an idempotent producer never expire, and its `stop` waits for them (aiokafka#1101)."""
    ours = new_producers()
    making.hang = {"send", "stop"}
    began = time.monotonic()
    with pytest.raises(BusUnavailable):
        async with ours.bounded("t") as producer:
            await producer.answer("send")
    making.hang = {"stop"}
    async with ours.bounded("t") as producer:
        await producer.answer("send")
    async with asyncio.timeout(LIMIT_S):
        await ours.close()
    assert time.monotonic() - began < 2
    assert len(making.made) == 2
    assert all(made.sender_task.cancelled() for made in making.made), "nothing of it sends any more"


async def test_a_producer_that_cannot_start_is_given_up_and_the_next_caller_tries_anew(making: Making) -> None:
    """aiokafka#1101, at the start."""
    ours = new_producers()
    making.hang = {"start", "stop"}
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(BusUnavailable):
            await ours.current()
    making.hang = set()
    assert await ours.current() is making.made[1]
    assert making.made[0].sender_task.cancelled()


async def test_a_broken_sequence_costs_the_producer_once_for_all_who_share_it(making: Making) -> None:
    """After OutOfOrderSequence every later batch fails too, until there is a new producer (aiokafka#1017)."""
    ours, last = new_producers(), asyncio.Event()

    async def fail(at: asyncio.Event | None = None) -> None:
        async with ours.bounded("t") as producer:
            await (producer.answer("send") if at is None else at.wait())
            raise OutOfOrderSequenceNumber

    late = asyncio.create_task(fail(last))
    outcomes = await asyncio.gather(*(fail() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, BusUnavailable) for outcome in outcomes)
    await ours.current()
    last.set()
    with pytest.raises(BusUnavailable):
        await late
    await ours.current()
    assert len(making.made) == 2
