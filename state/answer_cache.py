"""The answer cache: what a tenant was answered before, until its time is up. Losing it costs money only."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from contracts.errors import Misconfigured

WAIT_S = 0.5  # for the whole of one get or put: past it, asking the model is the better deal
CONNECTIONS = 32

_log = logging.getLogger(__name__)
_JITTER = (0.8, 1.0)  # answers kept together do not expire together, and none lives longer than asked


class RedisAnswerCache:
    """AnswerCache in Redis or Valkey. A server that is away, slow or confused is a miss and a warning.

    A cancelled or timed-out command's connection is dropped by redis-py; were a reply ever to reach the wrong
    caller all the same, its own key at its head would give it away.
    """

    def __init__(self, client: Redis) -> None:
        """`client` must leave replies as bytes."""
        self._client = client
        self._turn = asyncio.Semaphore(CONNECTIONS)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> "AsyncIterator[RedisAnswerCache]":
        """A cache at a Redis or Valkey URL; it need not be up. Raises Misconfigured: the URL is malformed."""
        try:
            client = Redis.from_url(
                url,
                socket_timeout=WAIT_S,
                socket_connect_timeout=WAIT_S,
                retry=Retry(NoBackoff(), 1),  # a connection that went stale while idle
                max_connections=2 * CONNECTIONS,
            )
        except ValueError:  # may quote the URL, password and all
            raise Misconfigured("the Redis URL is malformed; it should look like redis://host:6379/0") from None
        async with client:
            yield cls(client)

    async def get(self, tenant_id: str, request_digest: str) -> bytes | None:
        """The answer kept for this tenant, if any."""
        key = _key(tenant_id, request_digest)
        kept = await self._tried("get", tenant_id, lambda: self._client.get(key))
        if not isinstance(kept, bytes):
            return None
        head, _, answer = kept.partition(b"\n")
        if head != key:
            _log.error("answer cache gave another key's value", extra={"tenant_id": tenant_id})
            return None
        return answer

    async def put(self, tenant_id: str, request_digest: str, answer: bytes, ttl_s: float) -> None:
        """Keep an answer for at most `ttl_s`, a little less as chance has it."""
        key = _key(tenant_id, request_digest)
        value, ttl_ms = key + b"\n" + answer, max(1, int(_jittered(ttl_s) * 1000))
        await self._tried("put", tenant_id, lambda: self._client.set(key, value, px=ttl_ms))

    async def _tried(self, doing: str, tenant_id: str, command: Callable[[], Awaitable[object]]) -> object:
        """What the command returns, or None when that cannot be had in time."""
        try:
            async with asyncio.timeout(WAIT_S), self._turn:
                return await command()
        except (RedisError, OSError, RuntimeError) as error:  # uvloop's, of a lost connection
            _log.warning(
                "answer cache away", extra={"doing": doing, "tenant_id": tenant_id, "error": type(error).__name__}
            )
            return None


@dataclass(slots=True)
class MemoryAnswerCache:
    """AnswerCache in memory."""

    now: Callable[[], float] = time.monotonic
    _answers: dict[bytes, tuple[float, bytes]] = field(default_factory=dict)  # expiry, answer

    async def get(self, tenant_id: str, request_digest: str) -> bytes | None:
        """The answer kept for this tenant, if any."""
        expiry, answer = self._answers.get(_key(tenant_id, request_digest), (0.0, None))
        return answer if expiry > self.now() else None

    async def put(self, tenant_id: str, request_digest: str, answer: bytes, ttl_s: float) -> None:
        """Keep an answer for at most `ttl_s`, a little less as chance has it."""
        self._answers[_key(tenant_id, request_digest)] = (self.now() + _jittered(ttl_s), answer)


def _key(tenant_id: str, request_digest: str) -> bytes:
    """The digest first: it holds no colon, so no tenant's name can make its key another's."""
    return f"answer:{request_digest}:{tenant_id}".encode()


def _jittered(ttl_s: float) -> float:
    return ttl_s * random.uniform(*_JITTER)
