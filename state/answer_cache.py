"""The answer cache: what was answered before, until its time is up, and who asks what is not there yet.

Losing it costs money only: a server that is away, slow or confused is a miss, and whoever asks then asks alone.
"""

import hashlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from contracts.errors import StoreUnavailable
from state.redis_calls import RedisCalls, Script

_log = logging.getLogger(__name__)
_JITTER = (0.8, 1.0)  # answers kept together do not expire together, and none lives longer than asked
_SUM_BYTES = 16

_GET = Script("return redis.call('GET', KEYS[1])")
_PUT = Script("redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1")
_LEAD = Script("""
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")
_LAND = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1")


@dataclass(frozen=True, slots=True)
class RedisAnswerCache:
    """AnswerCache and Flights in Redis or Valkey.

    An entry begins with a digest over its key and its answer: one that is cut, overwritten or another's is a miss.
    """

    calls: RedisCalls

    async def get(self, tenant_id: str, request_digest: str) -> bytes | None:
        """The answer kept for this tenant, if any."""
        key = _key(tenant_id, request_digest)
        try:
            entry = await self.calls.run(_GET, [key])
        except StoreUnavailable as error:
            _log.warning("answer cache away: %s", error)
            return None
        if not isinstance(entry, bytes):
            return None
        if entry[:_SUM_BYTES] != _sum(key, entry[_SUM_BYTES:]):
            _log.warning("an entry of the answer cache is damaged, and asked for anew")
            return None
        return entry[_SUM_BYTES:]

    async def put(self, tenant_id: str, request_digest: str, answer: bytes, ttl_s: float) -> None:
        """Keep an answer for at most `ttl_s`, a little less as chance has it."""
        key = _key(tenant_id, request_digest)
        try:
            await self.calls.run(_PUT, [key], [_sum(key, answer) + answer, max(1, int(_jittered(ttl_s) * 1000))])
        except StoreUnavailable as error:
            _log.warning("answer cache away: %s", error)

    async def lead(self, key: str, owner: str, *, lease_s: float) -> bool:
        """Become or stay the one who asks; so is everybody while Redis is away."""
        try:
            return bool(await self.calls.run(_LEAD, [f"flight:{key}"], [owner, int(lease_s * 1000)]))
        except StoreUnavailable as error:
            _log.warning("nobody knows who else asks: %s", error)
            return True

    async def land(self, key: str, owner: str) -> None:
        """Make room for the next."""
        try:
            await self.calls.run(_LAND, [f"flight:{key}"], [owner])
        except StoreUnavailable as error:
            _log.warning("a flight is left to lapse: %s", error)


@dataclass(slots=True)
class MemoryAnswerCache:
    """AnswerCache and Flights in memory."""

    now: Callable[[], float] = time.monotonic
    _answers: dict[tuple[str, str], tuple[float, bytes]] = field(default_factory=dict)  # expiry, answer
    _leaders: dict[str, tuple[float, str]] = field(default_factory=dict)  # end of the lease, owner

    async def get(self, tenant_id: str, request_digest: str) -> bytes | None:
        """The answer kept for this tenant, if any."""
        expiry, answer = self._answers.get((tenant_id, request_digest), (0.0, None))
        return answer if expiry > self.now() else None

    async def put(self, tenant_id: str, request_digest: str, answer: bytes, ttl_s: float) -> None:
        """Keep an answer for at most `ttl_s`, a little less as chance has it."""
        self._answers[tenant_id, request_digest] = (self.now() + _jittered(ttl_s), answer)

    def entries(self) -> list[tuple[str, str]]:
        """(tenant, digest of the request) of all that is kept."""
        return list(self._answers)

    async def lead(self, key: str, owner: str, *, lease_s: float) -> bool:
        """Become or stay the one who asks."""
        end, leader = self._leaders.get(key, (0.0, owner))
        if leader != owner and end > self.now():
            return False
        self._leaders[key] = (self.now() + lease_s, owner)
        return True

    async def land(self, key: str, owner: str) -> None:
        """Make room for the next."""
        if self._leaders.get(key, (0.0, ""))[1] == owner:
            del self._leaders[key]


def _key(tenant_id: str, request_digest: str) -> bytes:
    """The digest first: it holds no colon, so no tenant's name can make its key another's."""
    return f"answer:{request_digest}:{tenant_id}".encode()


def _sum(key: bytes, answer: bytes) -> bytes:
    return hashlib.sha256(key + b"\n" + answer).digest()[:_SUM_BYTES]


def _jittered(ttl_s: float) -> float:
    return ttl_s * random.uniform(*_JITTER)
