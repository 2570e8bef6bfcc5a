"""A TCP proxy with weather: late, slow, sliced, silent, cut, or answering what the server did not say."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

_CHUNK = 65536
_QUEUED_CHUNKS = 64
_LONGEST_SLICED = 64  # bytes of a chunk that go one by one: lengths and headers come in pieces, at a bearable cost
_RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)  # SO_LINGER with no time: the peer sees a reset, not an end


class Tap(Protocol):
    """Reads along on one connection, and may change or keep back what the server says."""

    def asked(self, data: bytes) -> None:
        """Bytes of the client, before they go on."""

    def answered(self, data: bytes) -> bytes | None:
        """What to hand to the client instead of these bytes of the server; None: nothing, and the end."""


@dataclass(slots=True)
class Weather:
    """What the way to the server is like now. Each worker's own way has its own."""

    latency_s: float = 0.0  # one way
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0  # 0: no limit
    sliced: bool = False
    silent: bool = False  # nothing arrives, connections stay open
    refusing: bool = False  # no new connections
    cut_after: int | None = None  # bytes of clients that still go through; then every connection is cut, once

    def clear(self) -> None:
        """Let the sun shine."""
        for name, value in _weather_of_a_good_day().items():
            setattr(self, name, value)


def _weather_of_a_good_day() -> dict[str, object]:
    return {name: getattr(Weather(), name) for name in Weather.__slots__}


@dataclass
class Proxy:
    """Stands before one server on a port of its own; `new_tap` is asked for one at each connection."""

    host: str
    port: int  # the server's
    listen: int = 0  # the proxy's; 0: any
    new_tap: Callable[[], Tap] | None = None
    weather: Weather = field(default_factory=Weather)
    failures: list[BaseException] = field(default_factory=list)  # of the proxy itself, which should have none
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _cleared: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._writers) // 2

    def reset(self) -> None:
        """Cut every connection, with what is on its way."""
        for writer in list(self._writers):
            _abort(writer)

    def clear(self) -> None:
        """End whatever weather there is; what it kept back goes on."""
        self.weather.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one client's bytes to the server and back until either side ends it."""
        try:
            if self.weather.refusing:
                return _abort(writer)
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return _abort(writer)
        tap = self.new_tap() if self.new_tap else None
        both = {writer, far_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, far_writer, tap, is_answer=False))
                ways.create_task(self._carry(far_reader, writer, tap, is_answer=True))
        except* OSError:
            pass  # one side is gone; so is the other, now
        finally:
            self._writers -= both
            for end in both:
                _abort(end)

    async def close(self) -> None:
        """End everything."""
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def plugged(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`accept`, in a task that `close` ends."""
        task = asyncio.create_task(self.accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, tap: Tap | None, *, is_answer: bool
    ) -> None:
        """Read and write in two tasks, so that latency delays bytes and does not thin them out."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(source, on_the_way, tap, is_answer=is_answer))
            tasks.create_task(self._write(on_the_way, sink))

    async def _read(
        self,
        source: asyncio.StreamReader,
        on_the_way: asyncio.Queue[tuple[float, bytes]],
        tap: Tap | None,
        *,
        is_answer: bool,
    ) -> None:
        now = asyncio.get_running_loop().time
        arrives = 0.0
        while data := await source.read(_CHUNK):
            if tap is not None and is_answer:
                changed = tap.answered(data)
                if changed is None:
                    raise ConnectionAbortedError
                data = changed
            elif tap is not None:
                tap.asked(data)
            if not is_answer:
                self._spend(len(data))
            jitter_s = random.uniform(-self.weather.jitter_s, self.weather.jitter_s)
            arrives = max(arrives, now() + max(0.0, self.weather.latency_s + jitter_s))
            await on_the_way.put((arrives, data))
        raise ConnectionAbortedError

    def _spend(self, size: int) -> None:
        """Count a client's bytes towards the cut, if one is due."""
        if self.weather.cut_after is None:
            return
        self.weather.cut_after -= size
        if self.weather.cut_after < 0:
            self.weather.cut_after = None
            self.reset()
            raise ConnectionAbortedError

    async def _write(self, on_the_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        while True:
            arrives, data = await on_the_way.get()
            if (wait_s := arrives - now()) > 0:
                await asyncio.sleep(wait_s)
            for part in self._parts(data):
                while self.weather.silent:
                    await self._cleared.wait()
                sink.write(part)
                await sink.drain()
                if self.weather.bytes_per_s:
                    await asyncio.sleep(len(part) / self.weather.bytes_per_s)

    def _parts(self, data: bytes) -> list[bytes]:
        if self.weather.sliced:
            head, rest = data[:_LONGEST_SLICED], data[_LONGEST_SLICED:]
            return [head[i : i + 1] for i in range(len(head))] + ([rest] if rest else [])
        if self.weather.bytes_per_s:
            return [data[i : i + 1024] for i in range(0, len(data), 1024)]
        return [data]


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[Proxy]:
    """The proxy, listening; nothing of it is left afterwards."""
    server = await asyncio.start_server(proxy.plugged, "127.0.0.1", proxy.listen)
    proxy.listen = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_WHEN_CLOSED)
    writer.transport.abort()
