"""A client of bare frames, for what no library would send."""

import asyncio
import io
from typing import Any

from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer


def frame_of(api_key: int, version: int, body: Any) -> bytes:
    """A request's frame, without its length; correlation id 7."""
    schema = load_request_schema(api_key, version)
    header_schema: Any = schema.__header_schema__
    header = header_schema(request_api_key=api_key, request_api_version=version, correlation_id=7, client_id="wire")
    buffer = io.BytesIO()
    entity_writer(header_schema)(buffer, header)
    entity_writer(schema)(buffer, body)
    return buffer.getvalue()


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, bootstrap: str) -> "Wire":
        host, port = bootstrap.rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port)))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, frame: bytes) -> None:
        self.send_bytes(len(frame).to_bytes(4, "big") + frame)

    async def receive(self) -> bytes | None:
        """The next answer's frame; None when the broker has closed the connection."""
        try:
            size = int.from_bytes(await asyncio.wait_for(self._reader.readexactly(4), 10), "big")
            return await asyncio.wait_for(self._reader.readexactly(size), 10)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def ask(self, api_key: int, version: int, body: Any) -> Any:
        """The answer to one request, read to its last byte."""
        self.send(frame_of(api_key, version, body))
        frame = await self.receive()
        assert frame is not None, "the broker has closed the connection"
        return answer_in(frame, api_key, version)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def answer_in(frame: bytes, api_key: int, version: int) -> Any:
    schema: Any = load_response_schema(api_key, version)
    header, position = entity_reader(schema.__header_schema__)(frame, 0)
    assert header.correlation_id == 7
    body, size = entity_reader(schema)(frame, position)
    assert position + size == len(frame)
    return body
