"""The proxy and its taps: weather that does not do what it says would prove nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO

import pytest
from aiokafka.protocol.group import HeartbeatResponse_v1
from aiokafka.protocol.produce import ProduceResponse_v7

from tests.drill import taps
from tests.drill.proxy import Proxy, Tap, proxying
from tests.drill.taps import Asked, KafkaMischief, KafkaTap, PostgresMischief, PostgresTap

LIMIT_S = 30.0


class Echo:
    """Says what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
        except OSError:
            pass  # reset, as the test wants it
        finally:
            writer.close()


class Client:
    """One end of a proxied connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> bytes:
        """The echo of it."""
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), LIMIT_S)

    async def is_cut(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), LIMIT_S) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def through(echo: Echo, new_tap: Callable[[], Tap] | None = None) -> AsyncIterator[tuple[Proxy, Client]]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with proxying(Proxy("127.0.0.1", server.sockets[0].getsockname()[1], new_tap=new_tap)) as proxy:
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.listen))
        yield proxy, client
        client.writer.close()
    server.close()


async def test_on_a_good_day_everything_goes_through() -> None:
    async with through(Echo()) as (_, client):
        assert await client.say(b"x" * 200_000) == b"x" * 200_000


async def test_latency_delays_bytes_and_does_not_thin_them_out() -> None:
    async with through(Echo()) as (proxy, client):
        await client.say(b"connected")
        proxy.weather.latency_s = 0.05
        began = time.monotonic()
        for _ in range(20):
            client.writer.write(b"x" * 1000)
            await client.writer.drain()
        await client.reader.readexactly(20_000)
        assert 0.1 <= time.monotonic() - began < 1.0


async def test_slices_and_a_narrow_way_change_no_byte() -> None:
    async with through(Echo()) as (proxy, client):
        proxy.weather.sliced, proxy.weather.bytes_per_s = True, 200_000
        said = bytes(range(256)) * 40
        assert await client.say(said) == said


async def test_silence_keeps_what_is_said_until_it_ends() -> None:
    async with through(Echo()) as (proxy, client):
        await client.say(b"connected")
        proxy.weather.silent = True
        waiting = asyncio.create_task(client.say(b"hello"))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        proxy.clear()
        assert await waiting == b"hello"


async def test_a_reset_cuts_every_connection() -> None:
    async with through(Echo()) as (proxy, client):
        await client.say(b"connected")
        assert proxy.connections == 1
        proxy.reset()
        assert await client.is_cut()


async def test_nobody_is_let_in_while_it_refuses() -> None:
    async with through(Echo()) as (proxy, _):
        proxy.weather.refusing = True
        other = Client(*await asyncio.open_connection("127.0.0.1", proxy.listen))
        assert await other.is_cut()


async def test_a_cut_comes_after_so_many_bytes_and_once() -> None:
    echo = Echo()
    async with through(echo) as (proxy, client):
        await client.say(b"connected")
        proxy.weather.cut_after = 100
        await client.say(b"x" * 100)
        client.writer.write(b"too much")
        assert await client.is_cut()
        assert bytes(echo.heard) == b"connected" + b"x" * 100
        again = Client(*await asyncio.open_connection("127.0.0.1", proxy.listen))
        assert await again.say(b"x" * 1000) == b"x" * 1000


async def test_the_answer_to_what_is_marked_is_lost_after_it_arrived() -> None:
    echo, mischief = Echo(), PostgresMischief(b"COMMIT", left=1)
    async with through(echo, lambda: PostgresTap(mischief)) as (_, client):
        assert await client.say(b"SELECT") == b"SELECT"
        client.writer.write(b"COMMIT")
        assert await client.is_cut()
        assert bytes(echo.heard) == b"SELECTCOMMIT"
        assert (mischief.left, mischief.done) == (0, 1)


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def request(api_key: int, version: int, correlation: int) -> bytes:
    return framed(b"".join(n.to_bytes(size, "big") for n, size in ((api_key, 2), (version, 2), (correlation, 4))))


HEARTBEAT_ANSWER = framed((7).to_bytes(4, "big") + HeartbeatResponse_v1(0, 0).encode())


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_an_answer_says_the_error_however_it_is_cut_up(piece: int) -> None:
    mischief = KafkaMischief(frozenset({taps.HEARTBEAT}), error=27, left=1)
    tap = KafkaTap(mischief)
    tap.asked(request(taps.HEARTBEAT, 1, 7))
    answers = [HEARTBEAT_ANSWER[i : i + piece] for i in range(0, len(HEARTBEAT_ANSWER), piece)]
    through = b"".join(tap.answered(part) or b"" for part in answers)
    assert HeartbeatResponse_v1.decode(BytesIO(through[8:])).error_code == 27
    assert mischief.done == 1


def test_answers_to_other_requests_stay_as_they_are() -> None:
    tap = KafkaTap(KafkaMischief(frozenset({taps.PRODUCE}), error=45, left=9))
    tap.asked(request(taps.HEARTBEAT, 1, 7))
    assert tap.answered(HEARTBEAT_ANSWER) == HEARTBEAT_ANSWER


def test_a_lost_answer_ends_the_connection() -> None:
    tap = KafkaTap(KafkaMischief(frozenset({taps.HEARTBEAT}), error=None, left=1))
    tap.asked(request(taps.HEARTBEAT, 1, 7))
    assert tap.answered(HEARTBEAT_ANSWER) is None


def test_every_partition_of_a_produce_answer_says_the_error() -> None:
    parts = [(n, 0, 5, -1, 0) for n in range(3)]
    body = ProduceResponse_v7([("a", parts[:2]), ("b", parts[2:])], 0).encode()
    told = ProduceResponse_v7.decode(BytesIO(taps.with_error(Asked(taps.PRODUCE, 7), body, 45)))
    assert [(p, error, offset) for _, parts in told.topics for p, error, offset, *_ in parts] == [
        (0, 45, 5),
        (1, 45, 5),
        (2, 45, 5),
    ]
