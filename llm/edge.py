"""What both adapters do at the provider's edge: bound the time, and turn its failures into ours.

Messages name statuses and error codes only: a provider's own words may quote the customer or the key.
"""

import asyncio
import ipaddress
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import httpx2
from pydantic import BaseModel, ValidationError

from contracts.errors import (
    ModelKeyRefused,
    ModelOverloaded,
    ModelRateLimited,
    ModelRefused,
    ModelUnavailable,
    SupportError,
    UsageUnknown,
)
from contracts.model_ports import Load

CONNECTIONS = httpx2.Limits(max_connections=5000, keepalive_expiry=4.0)
"""Of one client: as many as a process may have lanes, and none kept idle until its server closes it, which many do
after five seconds: a call that meets that is charged what was held for it."""

_UNCONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

TransportError = aiohttp.ClientError
"""What the SDKs let through as it is: an answer that is no HTTP, for one."""

BodyT = TypeVar("BodyT", bound=BaseModel)

_OVERLOADED_CODES = frozenset({"overloaded_error", "rate_limit_error", "rate_limit_exceeded"})
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
_RETRIED_STATUSES = frozenset({408, 409})


class _ErrorDetail(BaseModel):
    type: str | None = None
    code: str | int | None = None


class _ErrorBody(BaseModel):
    error: _ErrorDetail


@asynccontextmanager
async def within(timeout_s: float, provider: str) -> AsyncIterator[None]:
    """Bound a whole call: an SDK's time-out only bounds the pause between two reads."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise UsageUnknown(f"{provider} did not answer within {timeout_s:.1f} s") from error


def failure(provider: str, status: int, headers: Mapping[str, str], body: str) -> SupportError:
    """Our error for an answer with an error status."""
    codes = _error_codes(body)
    message = " ".join([f"{provider} answered {status}", *sorted(codes)])
    if codes & _QUOTA_CODES:
        return ModelKeyRefused(message, quota=True)
    if status == 429:
        return ModelRateLimited(message, retry_after_s=retry_after_s(headers))
    if status == 529:
        return ModelOverloaded(message, retry_after_s=retry_after_s(headers))
    if status in (401, 403):
        return ModelKeyRefused(message)
    if status >= 500 or status in _RETRIED_STATUSES:
        return ModelUnavailable(message)
    return ModelRefused(message)


def read_body(provider: str, body: str, shape: type[BodyT]) -> BodyT:
    """The body of a 200 answer. Raises ModelOverloaded or ModelUnavailable: it holds an error, or no answer."""
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        codes = _error_codes(body)
        if codes & _OVERLOADED_CODES:  # `from None`, because pydantic's own text quotes the body
            raise ModelOverloaded(f"{provider} answered 200 with {' '.join(sorted(codes))}") from None
        fields = ", ".join(".".join(map(str, mistake["loc"])) or "body" for mistake in error.errors()[:3])
        if codes:
            raise ModelUnavailable(f"{provider} answered 200 with {' '.join(sorted(codes))}") from None
        raise UsageUnknown(f"{provider} answered 200 with something else than an answer: {fields}") from None


def unasked(provider: str, error: Exception) -> SupportError:
    """Our error for a call without an answer: nothing was paid for only where there was no connection at all.

    That is read from the transport's own error: to the SDK, a connection that was lost after the request and one that
    never was are the same.
    """
    message = f"{provider} could not be asked: {type(error).__name__}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _UNCONNECTED):
            return ModelUnavailable(message)
        cause = cause.__cause__
    return UsageUnknown(message)


def headroom(headers: Mapping[str, str], prefix: str, dimensions: tuple[str, str, str, str], said: str) -> Load:
    """What the headers say of requests, input, output and all tokens; `said` is "remaining" or "limit"."""
    return Load(*(_count(headers.get(f"{prefix}-{name.format(said)}", "")) for name in dimensions))


def _count(said: str) -> int:
    return int(said) if said.isascii() and said.isdigit() else -1


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What the Retry-After header asks for, in seconds; it may be a number or a date."""
    said = headers.get("retry-after", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        seconds = _seconds_until(said)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def unproxied(url: str | None) -> dict[str, None]:
    """The httpx mounts that keep a proxy of the environment from standing before a server on this machine."""
    host = urlsplit(url or "").hostname or ""
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if _is_loopback(host) else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds_until(date: str) -> float:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _error_codes(body: str) -> frozenset[str]:
    """The error's type and code, where they look like names and not like a sentence."""
    try:
        error = _ErrorBody.model_validate_json(body).error
    except ValidationError:
        return frozenset()
    return frozenset(
        str(code) for code in (error.type, error.code) if re.fullmatch(r"[a-z0-9_]{1,40}", str(code or ""))
    )
