"""A cable to a server that can be held, so that answers come late, or cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Cable:
    """A TCP proxy on `port`. While `answers` is clear, what the server says stays on the way."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.held = asyncio.Event()  # an answer is waiting
        self.port = 0

    def cut(self) -> None:
        """Drop every connection with what is still on the way."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _plug(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, far_writer]
        for source, sink, is_answer in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._carry(source, sink, is_answer))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if is_answer and not self.answers.is_set():
                    self.held.set()
                    await self.answers.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    async def unplug(self) -> None:
        """End everything."""
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def cable_to(host: str, port: int) -> AsyncIterator[Cable]:
    cable = Cable(host, port)
    server = await asyncio.start_server(cable._plug, "127.0.0.1", 0)
    cable.port = server.sockets[0].getsockname()[1]
    try:
        yield cable
    finally:
        server.close()
        await cable.unplug()
