"""Replies by SMTP. A mail server cannot be asked what became of a message, so the Message-ID tells a repeat apart."""

import asyncio
import contextlib
import hashlib
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, localtime
from typing import Literal

from contracts.effect_ports import Answer, Untold
from contracts.errors import ContractBroken, EffectRefused, OutcomeUnknown, OutletAway, Transient
from contracts.events import Command, SendReply
from contracts.ports import EffectResult

_SENT = EffectResult(order=None, amount=Decimal(0))
_GO_AHEAD = 354
_AT_LINE_START = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in, and how. `repeats`: a message that may have gone out is sent again."""

    host: str
    port: int
    sender: str  # an address, perhaps with a name: Shop <help@shop.example>
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: str | None = None
    cafile: str | None = None  # None: the system's certificates
    timeout_s: float = 20.0
    connections: int = 8
    repeats: bool = True


class SmtpOutlet:
    """Outlet for replies. One connection a message, each in a thread of its own."""

    name = "smtp"

    def __init__(self, server: MailServer) -> None:
        self._server = server
        self._sender = _parsed(server.sender)
        self._threads = ThreadPoolExecutor(server.connections, thread_name_prefix="smtp")

    @property
    def timeout_s(self) -> float:
        """How long a try takes at most."""
        return self._server.timeout_s

    @property
    def at_once(self) -> int:
        """How many connections there may be."""
        return self._server.connections

    async def deliver(self, command: Command, user_id: str | None) -> EffectResult:
        """Hand the reply to the mail server; see the port."""
        if not isinstance(command, SendReply):
            raise ContractBroken(f"a mail server cannot carry out {command.type_name()}")
        message = self._message(command)
        await self._cut_in_time(_Conversation(self._server), message)
        return _SENT

    async def ask(self, command: Command) -> Answer:
        """Nobody can be asked: whether to send it again is a setting."""
        return Untold(repeat=self._server.repeats)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _cut_in_time(self, conversation: "_Conversation", message: EmailMessage) -> None:
        """Wait for a conversation, but no longer than the time-out: then its connection is cut, and it ends."""
        loop = asyncio.get_running_loop()
        speaking = loop.run_in_executor(self._threads, conversation.hand_in, self._sender.addr_spec, message)
        timer = loop.call_later(self._server.timeout_s, conversation.cut)
        try:
            await asyncio.shield(speaking)
        except asyncio.CancelledError:
            conversation.cut()
            raise
        finally:
            timer.cancel()

    def _message(self, reply: SendReply) -> EmailMessage:
        """The message, the same for the same reply but for its date. Raises EffectRefused: no mail can go there."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        try:
            message["To"] = _parsed(reply.to_email)
        except ValueError as error:
            raise EffectRefused("the customer's e-mail address is not one that mail can be sent to") from error
        message["Subject"] = " ".join(reply.subject.split())
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = message_id(reply.effect_key, self._sender.domain)
        message["Auto-Submitted"] = "auto-replied"
        message.set_content(reply.text)
        return message


def message_id(effect_key: str, domain: str) -> str:
    """The Message-ID of a reply: by it a mailbox, or a person, knows a second copy."""
    return f"<{hashlib.sha256(effect_key.encode()).hexdigest()[:32]}@{domain}>"


class _Conversation:
    """One connection to the mail server, for one message, in a thread."""

    def __init__(self, server: MailServer) -> None:
        self._server = server
        self._smtp: smtplib.SMTP | None = None
        self._is_cut = False
        self._handed_over = False  # from the first byte of the message on, the server may have it

    def hand_in(self, sender: str, message: EmailMessage) -> None:
        """Say all that there is to say. Raises one of our errors."""
        try:
            smtp = self._connected()
            try:
                self._introduce(smtp)
                self._hand_over(smtp, sender, message)
            finally:
                _part(smtp)
        except (OSError, smtplib.SMTPException) as error:
            raise self._ours(error) from error

    def cut(self) -> None:
        """End the conversation from another thread, wherever it is."""
        self._is_cut = True
        sock = getattr(self._smtp, "sock", None)
        if sock is not None:
            _shut(sock)

    def _connected(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            self._smtp = smtplib.SMTP_SSL(server.host, server.port, timeout=server.timeout_s, context=self._tls())
        else:
            self._smtp = smtplib.SMTP(server.host, server.port, timeout=server.timeout_s)
        if self._is_cut:  # before there was anything to cut
            self._smtp.close()
            raise OutletAway("the mail server took too long to greet")
        return self._smtp

    def _introduce(self, smtp: smtplib.SMTP) -> None:
        if self._server.security == "starttls":
            smtp.starttls(context=self._tls())
        if self._server.username is not None:
            smtp.login(self._server.username, self._server.password or "")
        smtp.ehlo_or_helo_if_needed()

    def _hand_over(self, smtp: smtplib.SMTP, sender: str, message: EmailMessage) -> None:
        to = message["To"].addresses[0].addr_spec
        utf8 = not to.isascii()
        if utf8 and not smtp.has_extn("smtputf8"):
            raise EffectRefused("the mail server takes no address outside ASCII")
        _expect(smtp.mail(sender, ["smtputf8"] if utf8 else []), OutletAway, "our sender")
        _expect(smtp.rcpt(to), EffectRefused, "the customer's address")
        _expect(smtp.docmd("DATA"), EffectRefused, "the message", wanted=_GO_AHEAD)
        body = message.as_bytes(policy=SMTPUTF8 if utf8 else SMTP)
        self._handed_over = True
        smtp.send(_AT_LINE_START.sub(b"..", body) + b"\r\n.\r\n")
        _expect(smtp.getreply(), EffectRefused, "the message")

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._server.cafile)

    def _ours(self, error: Exception) -> Transient:
        """What an error of the connection means. It may quote what was said, and does not come along."""
        kind = type(error).__name__
        if self._handed_over:
            return OutcomeUnknown(f"the mail server took the message and did not answer: {kind}")
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return OutletAway("the mail server refuses our user name or password")
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return OutletAway("the mail server offers no TLS or no way to log in")
        if isinstance(error, ssl.SSLCertVerificationError):
            return OutletAway(f"the mail server's certificate is not trusted: {error.verify_message}")
        return OutletAway(f"the mail server cannot be reached: {kind}")


def _expect(
    reply: tuple[int, bytes], refused: Callable[[str], Exception], what: str, *, wanted: int | None = None
) -> None:
    """Go on after a good reply. Raises Transient: not now (4xx); `refused`: never (5xx)."""
    code = reply[0]
    if code == wanted or (wanted is None and 200 <= code < 300):
        return
    if code >= 500:
        raise refused(f"the mail server refuses {what}: {code}")
    raise Transient(f"the mail server does not take {what} now: {code}")


def _parsed(address: str) -> Address:
    """One address, perhaps with a name. Raises ValueError: it is none, or several."""
    named = re.fullmatch(r"\s*(?:([^<>]*?)\s*<([^<>]+)>|([^<>]+?))\s*", address)
    if named is None:
        raise ValueError("not an address")
    try:
        parsed = Address(named[1] or "", addr_spec=named[2] or named[3])
    except (HeaderParseError, IndexError) as error:
        raise ValueError("not an address") from error
    if not parsed.username or not parsed.domain:
        raise ValueError("not an address")
    return parsed


def _part(smtp: smtplib.SMTP) -> None:
    """Say goodbye, and wait for no answer: what became of the message is known by now."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        smtp.putcmd("QUIT")
    smtp.close()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is shut already
        sock.shutdown(socket.SHUT_RDWR)
