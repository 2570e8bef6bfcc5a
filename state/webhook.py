"""Shop commands to the shop's own system by HTTP: a signed POST under an idempotency key, asked for before a repeat."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Self
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from contracts.effect_ports import Answer, Done, NotDone, Untold
from contracts.errors import EffectRefused, OutcomeUnknown, OutletAway, Transient
from contracts.events import Command
from contracts.ports import EffectResult
from contracts.shop import Order
from contracts.values import Money

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_NOT_NOW = {425, 429}
_MAY_HAVE_HAPPENED = {202, 408}
_NOT_OURS = {401, 403, 404, 405}  # an address, a secret or a permission is wrong, and no command is at fault
_LONGEST_REASON = 200
_AT_ONCE = 64  # fewer than the connections that its client keeps


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where commands are posted. `status_url` holds `{key}` and answers GET; None: nobody can be asked."""

    url: str
    secret: str  # as Standard Webhooks writes it, whsec_ and base64; else its bytes as they are
    status_url: str | None = None
    timeout_s: float = 10.0


class _Told(BaseModel):
    """What the receiver answers: the money it moved, and the order as it is now."""

    amount: Money
    order: Order | None = None


class WebhookOutlet:
    """Outlet for shop commands. The same key always comes with the same body."""

    name = "webhook"

    def __init__(self, receiver: Receiver, http: httpx2.AsyncClient) -> None:
        self._receiver = receiver
        self._http = http
        self._secret = _bytes_of(receiver.secret)

    @classmethod
    @asynccontextmanager
    async def open(cls, receiver: Receiver) -> AsyncIterator[Self]:
        """The outlet with connections of its own, closed at the end."""
        async with httpx2.AsyncClient(timeout=receiver.timeout_s, follow_redirects=False) as http:
            yield cls(receiver, http)

    @property
    def timeout_s(self) -> float:
        """How long a try takes at most."""
        return self._receiver.timeout_s

    @property
    def at_once(self) -> int:
        """How many requests may be under way together."""
        return _AT_ONCE

    async def deliver(self, command: Command, user_id: str | None) -> EffectResult:
        """Post the command; a key that the receiver knows (409) is done. See the port."""
        response = await self._exchange("POST", self._receiver.url, command.effect_key, _body(command, user_id))
        if response.is_success or response.status_code == 409:
            return _result(response)
        if response.status_code in _NOT_NOW:
            raise Transient("the receiver has no time now", retry_after_s=_retry_after_s(response))
        raise EffectRefused(_reason(response))

    async def ask(self, command: Command) -> Answer:
        """Ask by key what became of a command; see the port."""
        if self._receiver.status_url is None:
            return Untold(repeat=True)  # the receiver knows the key, if it is one
        url = self._receiver.status_url.replace("{key}", quote(command.effect_key, safe=""))
        response = await self._exchange("GET", url, command.effect_key, b"", missing_is_an_answer=True)
        if response.status_code == 404:
            return NotDone()
        if response.is_success:
            return Done(_result(response))
        raise OutcomeUnknown(f"asked what became of a command, the receiver answers {response.status_code}")

    async def _exchange(
        self, method: str, url: str, key: str, body: bytes, *, missing_is_an_answer: bool = False
    ) -> httpx2.Response:
        """Send a signed request. Raises OutletAway, OutcomeUnknown: no answer, or none that says anything."""
        try:
            async with asyncio.timeout(self._receiver.timeout_s):
                response = await self._http.request(method, url, content=body, headers=self._headers(key, body))
        except _NOT_SENT as error:
            raise OutletAway(f"the receiver of commands cannot be reached: {type(error).__name__}") from error
        except (TimeoutError, httpx2.TransportError) as error:
            raise OutcomeUnknown(f"the receiver of commands did not answer: {type(error).__name__}") from error
        code = response.status_code
        if code == 404 and missing_is_an_answer:
            return response
        if code in _NOT_OURS or 300 <= code < 400:
            raise OutletAway(
                f"the receiver of commands answers {code}: its address, our secret or our rights are wrong"
            )
        if code in _MAY_HAVE_HAPPENED or code >= 500:
            raise OutcomeUnknown(f"the receiver of commands answers {code}")
        return response

    def _headers(self, key: str, body: bytes) -> dict[str, str]:
        """Standard Webhooks' three, the key, and what the body is."""
        now = str(int(time.time()))
        return {
            "content-type": "application/cloudevents+json",
            "idempotency-key": key,
            "webhook-id": key,
            "webhook-timestamp": now,
            "webhook-signature": signature(self._secret, key, now, body),
        }


def signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The signature that Standard Webhooks prescribes: HMAC-SHA256 over id, time and body."""
    signed = b".".join([message_id.encode(), timestamp.encode(), body])
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _bytes_of(secret: str) -> bytes:
    prefix, _, rest = secret.partition("_")
    try:
        return base64.b64decode(rest, validate=True) if prefix == "whsec" else secret.encode()
    except binascii.Error:
        return secret.encode()


def _body(command: Command, user_id: str | None) -> bytes:
    """The command as a CloudEvent. No time stands in it: a repeat is the same to the byte."""
    event = {
        "specversion": "1.0",
        "id": command.effect_key,
        "source": "urn:switchyard:effects",
        "type": command.type_name(),
        "subject": command.ticket_id,
        "datacontenttype": "application/json",
        "data": {**command.model_dump(mode="json"), "user_id": user_id},
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _result(response: httpx2.Response) -> EffectResult:
    """What was done. Raises OutcomeUnknown: the answer does not say."""
    try:
        told = _Told.model_validate_json(response.content)
    except ValidationError as error:
        why = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, why["loc"])) or "the whole"
        raise OutcomeUnknown(f"the receiver's answer is not {{amount, order}}: {field} {why['type']}") from None
    return EffectResult(told.order, Decimal(told.amount))


def _reason(response: httpx2.Response) -> str:
    """Why the receiver refuses, in its own words where it says `reason`."""
    try:
        said = json.loads(response.content)
    except ValueError:
        said = None
    reason = said.get("reason") if isinstance(said, dict) else None
    told = str(reason)[:_LONGEST_REASON] if reason else f"status {response.status_code}"
    return f"the shop's system refuses it: {told}"


def _retry_after_s(response: httpx2.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None
