"""A small mail server: it takes messages, and misbehaves as it is told."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default


@dataclass
class MailServer:
    """`replies` stand for its own, by command, those `once` for the next one.

    A command in `dies_at` or `hangs_at` is heard and not answered; `message` is the end of one.
    """

    replies: dict[str, str] = field(default_factory=dict)
    once: dict[str, str] = field(default_factory=dict)
    dies_at: str = ""
    hangs_at: str = ""
    drips_at: str = ""  # a line of an answer that never ends, again and again
    tls: ssl.SSLContext | None = None
    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's conversation."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.partition(" ")[0].upper()
            if verb == "QUIT":
                return
            if not await self._answer(verb, verb, line, writer):
                return
            if verb == "STARTTLS":
                await writer.start_tls(self.tls)  # type: ignore[arg-type]
            if verb == "DATA" and "DATA" not in self.replies:
                said = await reader.readuntil(b"\r\n.\r\n")
                raw = said.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
                self.messages.append(message_from_bytes(raw, policy=default))  # type: ignore[arg-type]
                if not await self._answer("message", "message", "", writer):
                    return

    async def _answer(self, what: str, verb: str, line: str, writer: asyncio.StreamWriter) -> bool:
        if verb == "RCPT":
            self.recipients.append(line.partition("<")[2].partition(">")[0])
        if verb == "AUTH":
            self.logins.append(base64.b64decode(line.split()[-1]).decode())
        if what == self.hangs_at:
            await asyncio.Event().wait()
        while what == self.drips_at:
            writer.write(b"250-go on waiting\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        if what == self.dies_at:
            return False
        writer.write(f"{self.once.pop(what, None) or self.replies.get(what) or self._usual(verb)}\r\n".encode())
        await writer.drain()
        return True

    def _usual(self, verb: str) -> str:
        if verb == "EHLO":
            return "250-here\r\n250-AUTH PLAIN\r\n250 STARTTLS" if self.tls else "250-here\r\n250 AUTH PLAIN"
        return {"DATA": "354 go on", "STARTTLS": "220 go on", "AUTH": "235 welcome"}.get(verb, "250 fine")


@contextlib.asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    """A mail server on a port of its own."""
    state = MailServer()
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0, limit=2**22)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
