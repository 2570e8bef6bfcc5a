"""A shop's own system: takes commands by HTTP, each key once, and misbehaves as it is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ShopServer:
    """`answers` come first, one a POST: a status and a body in place of carrying the command out."""

    port: int = 0
    dies_after_accepting: bool = False
    hangs: bool = False
    answers: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    status_is_missing: bool = False
    asked: list[Asked] = field(default_factory=list)
    carried: dict[str, dict[str, Any]] = field(default_factory=dict)  # what was answered, by key

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of one client."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            one = await _read(reader)
            self.asked.append(one)
            answered = self._post(one) if one.method == "POST" else self._get(one)
            if self.hangs:
                await asyncio.Event().wait()
            if answered is not None:
                writer.write(_written(*answered))
                await writer.drain()
        writer.close()

    def _post(self, one: Asked) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if self.answers:
            return self.answers.pop(0)
        key = one.headers["idempotency-key"]
        status = 409 if key in self.carried else 200
        self.carried.setdefault(key, {"amount": 12.35, "order": None})
        return None if self.dies_after_accepting else (status, self.carried[key], {})

    def _get(self, one: Asked) -> tuple[int, dict[str, Any], dict[str, str]]:
        key = one.headers["webhook-id"]
        if key in self.carried and not self.status_is_missing:
            return 200, self.carried[key], {}
        return 404, {}, {}

    def methods(self) -> list[str]:
        """What was asked of it, in order."""
        return [one.method for one in self.asked]


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def _written(status: int, document: dict[str, Any], headers: dict[str, str]) -> bytes:
    body = json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def shop_server() -> AsyncIterator[ShopServer]:
    """A shop's system on a port of its own."""
    state = ShopServer()
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
