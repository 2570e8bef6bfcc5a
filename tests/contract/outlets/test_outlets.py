"""Commands that others carry out: once, as far as that can be known, whatever those others do."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import ssl
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts.effect_ports import Answer, Busy, First, NotDone
from contracts.errors import (
    Deferred,
    EffectInDoubt,
    EffectRefused,
    OutcomeUnknown,
    OutletAway,
    Transient,
)
from contracts.events import Command, ShopCommand
from contracts.ports import EffectResult, EffectsPort
from state.effect_attempts import MemoryAttempts
from state.mail import MailServer as MailSettings
from state.mail import SmtpOutlet, message_id
from state.outside import OutsideEffects, RoutedEffects
from state.webhook import Receiver, WebhookOutlet
from tests.contract.outlets.mail_server import MailServer, mail_server
from tests.contract.outlets.shop_server import ShopServer, shop_server
from tests.contract.samples import cancel, move, reply

SECRET = b"a secret that only two know"


@dataclass
class Outside:
    """An outlet, what stands behind it, and the book of tries."""

    outlet: Any
    behind: Any
    command: Command
    clock: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self) -> None:
        self.attempts = MemoryAttempts(lambda: self.clock[0])

    async def carry_out(self, command: Command | None = None) -> EffectResult:
        """As the effects agent does."""
        port: EffectsPort = OutsideEffects(self.outlet, self.attempts)
        command = command or self.command
        return await (port.apply(command, "ada") if isinstance(command, ShopCommand) else port.send(command))  # type: ignore[arg-type]

    async def begun(self) -> Any:
        return await self.attempts.begin(self.command, None, self.outlet.name, lease_s=60)


class OutletContract(ABC):
    """What every outlet keeps to."""

    async def test_a_command_that_is_sent_twice_is_carried_out_once(self, at: Outside) -> None:
        assert await at.carry_out() == await at.carry_out()
        assert self.carried(at) == 1

    async def test_while_a_try_may_be_under_way_elsewhere_nothing_is_sent(self, at: Outside) -> None:
        await at.begun()
        with pytest.raises(Deferred):
            await at.carry_out()
        assert self.carried(at) == 0

    async def test_a_try_that_died_before_it_was_sent_is_made_good(self, at: Outside) -> None:
        await at.begun()
        at.clock[0] += 2 * at.outlet.timeout_s
        await at.carry_out()
        assert self.carried(at) == 1

    async def test_what_nobody_took_leaves_no_doubt(self, away: Outside) -> None:
        with pytest.raises(OutletAway):
            await away.carry_out()
        assert await away.begun() == First()

    async def test_a_refusal_is_for_good(self, at: Outside) -> None:
        self.refuse(at)
        for _ in range(2):
            with pytest.raises(EffectRefused):
                await at.carry_out()
        assert self.tries(at) == 1
        assert self.carried(at) == 0

    async def test_not_now_is_no_refusal(self, at: Outside) -> None:
        self.put_off(at)
        with pytest.raises(Transient) as not_now:
            await at.carry_out()
        assert not isinstance(not_now.value, OutcomeUnknown | OutletAway)
        await at.carry_out()
        assert self.carried(at) == 1

    async def test_who_is_too_slow_leaves_a_doubt_in_time(self, at: Outside) -> None:
        self.hang(at)
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()

    # what the servers are told, and what they saw

    @abstractmethod
    def carried(self, at: Outside) -> int:
        """How often the command was carried out."""

    @abstractmethod
    def tries(self, at: Outside) -> int:
        """How often the server was spoken to."""

    @abstractmethod
    def refuse(self, at: Outside) -> None:
        """Have the next try refused for good."""

    @abstractmethod
    def put_off(self, at: Outside) -> None:
        """Have the next try told to come again."""

    @abstractmethod
    def hang(self, at: Outside) -> None:
        """Have the server never answer."""


class TestSmtp(OutletContract):
    @pytest.fixture
    async def server(self) -> AsyncIterator[MailServer]:
        async with mail_server() as server:
            yield server

    @pytest.fixture
    def settings(self, server: MailServer) -> MailSettings:
        return MailSettings("127.0.0.1", server.port, "Shop <help@shop.example>", security="none", timeout_s=0.5)

    @pytest.fixture
    def at(self, server: MailServer, settings: MailSettings) -> Outside:
        return Outside(SmtpOutlet(settings), server, reply("t1/1/reply"))

    @pytest.fixture
    def away(self, settings: MailSettings) -> Outside:
        return Outside(SmtpOutlet(replace(settings, port=1)), None, reply("t1/1/reply"))

    def carried(self, at: Outside) -> int:
        return len(at.behind.messages)

    def tries(self, at: Outside) -> int:
        connections: int = at.behind.connections
        return connections

    def refuse(self, at: Outside) -> None:
        at.behind.replies["RCPT"] = "550 nobody of that name"

    def put_off(self, at: Outside) -> None:
        at.behind.once["RCPT"] = "451 come again"

    def hang(self, at: Outside) -> None:
        at.behind.hangs_at = "message"

    async def test_the_message_is_for_the_customer_alone_and_says_who_sends_it(
        self, at: Outside, server: MailServer
    ) -> None:
        text = "Grüße,\n.\n..and a line that starts with dots\n" + "long " * 400
        await at.carry_out(reply("k", text))
        [message] = server.messages
        assert server.recipients == ["ada@example.com"]
        assert message["From"] == "Shop <help@shop.example>"
        assert message["Message-ID"] == message_id("k", "shop.example")
        assert message["Auto-Submitted"] == "auto-replied"
        assert message.get_content().split() == text.split()

    async def test_a_subject_cannot_add_headers(self, at: Outside, server: MailServer) -> None:
        sneaky = reply("k").model_copy(update={"subject": "Re: x\r\nBcc: eve@example.com\n\nHello"})
        await at.carry_out(sneaky)
        assert server.recipients == ["ada@example.com"]
        assert server.messages[0]["Bcc"] is None
        assert server.messages[0]["Subject"] == "Re: x Bcc: eve@example.com Hello"

    @pytest.mark.parametrize(
        "to", ["", "ada", "ada@", "a@b.example, eve@c.example", "a@b.example\r\nRCPT TO:<eve@c.example>", "<>"]
    )
    async def test_what_is_no_address_is_refused_before_anything_is_said(
        self, at: Outside, server: MailServer, to: str
    ) -> None:
        with pytest.raises(EffectRefused, match="address"):
            await at.carry_out(reply("k").model_copy(update={"to_email": to}))
        assert server.recipients == []

    async def test_a_server_that_dies_after_accepting_gets_the_same_message_again(
        self, at: Outside, server: MailServer
    ) -> None:
        server.dies_at = "message"
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()
        server.dies_at = ""
        await at.carry_out()
        assert len({message["Message-ID"] for message in server.messages}) == 1
        assert len(server.messages) == 2

    async def test_or_nothing_and_a_person_is_told_where_once_is_the_most(
        self, server: MailServer, settings: MailSettings
    ) -> None:
        at = Outside(SmtpOutlet(replace(settings, repeats=False)), server, reply("k"))
        server.dies_at = "message"
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()
        server.dies_at = ""
        with pytest.raises(EffectInDoubt):
            await at.carry_out()
        with pytest.raises(EffectRefused, match="nobody can say"):
            await at.carry_out()
        assert len(server.messages) == 1

    @pytest.mark.parametrize("verb", ["EHLO", "MAIL", "RCPT", "DATA"])
    async def test_a_server_that_dies_before_it_had_the_message_leaves_no_doubt(
        self, at: Outside, server: MailServer, verb: str
    ) -> None:
        server.dies_at = verb
        with pytest.raises(OutletAway):
            await at.carry_out()
        assert await at.begun() == First()

    async def test_a_server_that_hangs_while_it_is_spoken_to_is_left_in_time(
        self, at: Outside, server: MailServer
    ) -> None:
        server.hangs_at = "RCPT"
        with pytest.raises(OutletAway):
            await at.carry_out()

    @pytest.mark.parametrize(("what", "error"), [("MAIL", OutletAway), ("message", OutcomeUnknown)])
    async def test_a_server_that_never_ends_its_answer_is_left_in_time(
        self, at: Outside, server: MailServer, what: str, error: type[Exception]
    ) -> None:
        server.drips_at = what
        async with asyncio.timeout(30):
            with pytest.raises(error):
                await at.carry_out()

    async def test_it_logs_in_where_it_is_told_to(self, server: MailServer, settings: MailSettings) -> None:
        at = Outside(SmtpOutlet(replace(settings, username="ann", password="pass")), server, reply("k"))
        await at.carry_out()
        assert server.logins == ["\0ann\0pass"]

    async def test_credentials_that_are_refused_are_an_outage_and_no_fault_of_the_reply(
        self, server: MailServer, settings: MailSettings
    ) -> None:
        at = Outside(SmtpOutlet(replace(settings, username="ann", password="wrong")), server, reply("k"))
        server.replies["AUTH"] = "535 no"
        with pytest.raises(OutletAway, match="user name or password"):
            await at.carry_out()

    async def test_it_speaks_over_tls_with_a_server_it_trusts_and_with_no_other(
        self, server: MailServer, settings: MailSettings, tmp_path: Path
    ) -> None:
        cert = certificate(tmp_path)
        server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.tls.load_cert_chain(cert, tmp_path / "key.pem")
        trusting = replace(settings, host="localhost", security="starttls", cafile=str(cert), timeout_s=5)
        await Outside(SmtpOutlet(trusting), server, reply("k")).carry_out()
        assert len(server.messages) == 1
        wary = Outside(SmtpOutlet(replace(trusting, cafile=None)), server, reply("k2"))
        with pytest.raises(OutletAway, match="not trusted"):
            await wary.carry_out()
        assert len(server.messages) == 1

    async def test_a_server_without_tls_is_told_nothing_where_tls_is_asked_for(
        self, server: MailServer, settings: MailSettings
    ) -> None:
        at = Outside(SmtpOutlet(replace(settings, security="starttls")), server, reply("k"))
        with pytest.raises(OutletAway, match="no TLS"):
            await at.carry_out()
        assert server.recipients == []


class TestWebhook(OutletContract):
    @pytest.fixture
    async def server(self) -> AsyncIterator[ShopServer]:
        async with shop_server() as server:
            yield server

    @pytest.fixture
    def receiver(self, server: ShopServer) -> Receiver:
        base = f"http://127.0.0.1:{server.port}/effects"
        secret = "whsec_" + base64.b64encode(SECRET).decode()
        return Receiver(base, secret, status_url=f"{base}/{{key}}", timeout_s=0.5)

    @pytest.fixture
    async def at(self, server: ShopServer, receiver: Receiver) -> AsyncIterator[Outside]:
        async with WebhookOutlet.open(receiver) as outlet:
            yield Outside(outlet, server, cancel("t1/1/cancel"))

    @pytest.fixture
    async def away(self, receiver: Receiver) -> AsyncIterator[Outside]:
        async with WebhookOutlet.open(replace(receiver, url="http://127.0.0.1:1/")) as outlet:
            yield Outside(outlet, None, cancel("t1/1/cancel"))

    def carried(self, at: Outside) -> int:
        return len(at.behind.carried)

    def tries(self, at: Outside) -> int:
        methods: list[str] = at.behind.methods()
        return methods.count("POST")

    def refuse(self, at: Outside) -> None:
        at.behind.answers.append((422, {"reason": "the order is on its way"}, {}))

    def put_off(self, at: Outside) -> None:
        at.behind.answers.append((429, {}, {"retry-after": "7"}))

    def hang(self, at: Outside) -> None:
        at.behind.hangs = True

    async def test_the_command_comes_as_a_signed_cloud_event_under_its_key(
        self, at: Outside, server: ShopServer
    ) -> None:
        assert await at.carry_out() == EffectResult(None, Decimal("12.35"))
        [one] = server.asked
        event = json.loads(one.body)
        assert (event["specversion"], event["id"], event["type"]) == ("1.0", "t1/1/cancel", "CancelOrder")
        assert (event["data"]["order_id"], event["data"]["user_id"]) == ("#W1", "ada")
        assert one.headers["idempotency-key"] == one.headers["webhook-id"] == "t1/1/cancel"
        signed = f"t1/1/cancel.{one.headers['webhook-timestamp']}.".encode() + one.body
        wanted = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        assert one.headers["webhook-signature"] == f"v1,{wanted}"

    async def test_a_server_that_dies_after_accepting_is_asked_and_not_told_again(
        self, at: Outside, server: ShopServer
    ) -> None:
        server.dies_after_accepting = True
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()
        server.dies_after_accepting = False
        assert (await at.carry_out()).amount == Decimal("12.35")
        assert server.methods() == ["POST", "GET"]
        assert server.asked[1].path == "/effects/t1%2F1%2Fcancel"
        assert await at.carry_out() == await at.carry_out()
        assert server.methods() == ["POST", "GET"]

    async def test_a_server_that_knows_nothing_of_it_is_told_again(self, at: Outside, server: ShopServer) -> None:
        server.answers.append((500, {}, {}))
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()
        await at.carry_out()
        assert server.methods() == ["POST", "GET", "POST"]
        assert len({one.body for one in server.asked if one.method == "POST"}) == 1

    async def test_without_a_place_to_ask_the_key_alone_keeps_it_from_happening_twice(
        self, server: ShopServer, receiver: Receiver
    ) -> None:
        async with WebhookOutlet.open(replace(receiver, status_url=None)) as outlet:
            at = Outside(outlet, server, cancel("k"))
            server.dies_after_accepting = True
            with pytest.raises(OutcomeUnknown):
                await at.carry_out()
            server.dies_after_accepting = False
            assert (await at.carry_out()).amount == Decimal("12.35")
        assert server.methods() == ["POST", "POST"]
        assert list(server.carried) == ["k"]

    async def test_who_cannot_be_asked_now_leaves_the_doubt(self, at: Outside, server: ShopServer) -> None:
        server.dies_after_accepting = True
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()
        server.hangs = True
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()
        server.hangs = server.dies_after_accepting = False
        await at.carry_out()
        assert server.methods() == ["POST", "GET", "GET"]

    @pytest.mark.parametrize("status", [301, 401, 403, 404])
    async def test_a_wrong_address_or_secret_is_an_outage_and_no_fault_of_the_command(
        self, at: Outside, server: ShopServer, status: int
    ) -> None:
        server.answers.append((status, {}, {"location": "/elsewhere"}))
        with pytest.raises(OutletAway, match=str(status)):
            await at.carry_out()
        assert await at.begun() == First()

    @pytest.mark.parametrize("status", [202, 408, 500, 503])
    async def test_an_answer_that_says_nothing_leaves_a_doubt(
        self, at: Outside, server: ShopServer, status: int
    ) -> None:
        server.answers.append((status, {}, {}))
        with pytest.raises(OutcomeUnknown):
            await at.carry_out()

    async def test_an_answer_without_the_amount_is_not_taken_for_nothing_moved(
        self, at: Outside, server: ShopServer
    ) -> None:
        server.answers.append((200, {"ok": True}, {}))
        with pytest.raises(OutcomeUnknown, match="amount missing"):
            await at.carry_out()

    async def test_who_has_no_time_says_when_to_come_again(self, at: Outside) -> None:
        self.put_off(at)
        with pytest.raises(Transient) as later:
            await at.carry_out()
        assert later.value.retry_after_s == 7

    async def test_a_refusal_says_why(self, at: Outside) -> None:
        self.refuse(at)
        with pytest.raises(EffectRefused, match="the order is on its way"):
            await at.carry_out()


async def test_a_try_that_waits_for_room_has_not_begun() -> None:
    @dataclass
    class Full:
        name: str = "full"
        timeout_s: float = 60
        at_once: int = 2
        asked: list[str] = field(default_factory=list)
        release: asyncio.Event = field(default_factory=asyncio.Event)

        async def deliver(self, command: Command, user_id: str | None) -> EffectResult:
            self.asked.append(command.effect_key)
            await self.release.wait()
            return EffectResult(None, Decimal(0))

        async def ask(self, command: Command) -> Answer:
            return NotDone()

    outlet, attempts = Full(), MemoryAttempts()
    port = OutsideEffects(outlet, attempts)
    trying = asyncio.gather(*(port.send(reply(key)) for key in ("a", "b", "c")))
    async with asyncio.timeout(30):
        while len(outlet.asked) < outlet.at_once:
            await asyncio.sleep(0)
    assert isinstance(await attempts.begin(reply("b"), None, "full", lease_s=60), Busy)
    assert await attempts.begin(reply("c"), None, "full", lease_s=60) == First()
    await attempts.drop("c")
    outlet.release.set()
    await trying
    assert outlet.asked == ["a", "b", "c"]


async def test_replies_and_commands_go_their_own_ways() -> None:
    class Way:
        def __init__(self) -> None:
            self.went: list[str] = []

        async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
            self.went.append(command.effect_key)
            return EffectResult(None, Decimal(0))

        async def send(self, command: Command) -> EffectResult:
            self.went.append(command.effect_key)
            return EffectResult(None, Decimal(0))

    replies, commands = Way(), Way()
    routed: EffectsPort = RoutedEffects(replies=replies, commands=commands)
    await routed.send(reply("r"))
    await routed.apply(move("m"), "ada")
    assert (replies.went, commands.went) == (["r"], ["m"])


def certificate(folder: Path) -> Path:
    """A certificate for localhost that is its own authority, and its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not there")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    paths = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), *paths], check=True, capture_output=True)
    return folder / "cert.pem"
