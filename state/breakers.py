"""Circuit breakers in Redis, one for a provider's model, told once for all workers."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from contracts.errors import StoreUnavailable
from contracts.model_ports import Open, Pass
from state.redis_calls import Argument, RedisCalls, Script

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a breaker opens, and for how long."""

    failures: int = 5  # within the window, at least
    share: float = 0.5  # of the calls in the window
    window_s: float = 10.0
    open_s: float = 5.0  # doubles with each probe that fails
    longest_open_s: float = 30.0
    probe_s: float = 60.0  # for a probe to tell; then another may


# A hash: `until` is there while it is open or half open; made/failed count two halves of the window, of which `half` is
# the younger's number.
_ASK = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'until', 'probe', 'probe_until', 'half')
if found[1] then
    local until_ms = tonumber(found[1])
    if now < until_ms then return {'open', until_ms - now} end
    if found[2] and found[2] ~= ARGV[1] and now < tonumber(found[3]) then
        return {'open', math.min(1000, tonumber(found[3]) - now)}
    end
    redis.call('HSET', KEYS[1], 'probe', ARGV[1], 'probe_until', now + ARGV[2])
    return {'probe', 0}
end
local half = math.floor(now / ARGV[3])
local seen = tonumber(found[4] or -2)
if seen ~= half then
    local made, failed = 0, 0
    if seen == half - 1 then
        made = redis.call('HGET', KEYS[1], 'made') or 0
        failed = redis.call('HGET', KEYS[1], 'failed') or 0
    end
    redis.call('HSET', KEYS[1], 'half', half, 'made_before', made, 'failed_before', failed, 'made', 0, 'failed', 0)
    redis.call('PEXPIRE', KEYS[1], ARGV[3] * 4)
end
redis.call('HINCRBY', KEYS[1], 'made', 1)
return {'closed', 0}
""")

_TELL = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said = ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'until', 'probe', 'open_ms', 'made', 'failed', 'made_before',
                         'failed_before')
local function open(open_ms)
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'until', now + open_ms, 'open_ms', open_ms)
    redis.call('PEXPIRE', KEYS[1], open_ms * 10 + 600000)
    return {'open', open_ms}
end
if found[1] then
    if found[2] == ARGV[1] then
        if said == 'answered' then redis.call('DEL', KEYS[1]) return {'closed', 0} end
        if said == 'failed' then return open(math.min(tonumber(found[3]) * 2, tonumber(ARGV[6]))) end
        redis.call('HDEL', KEYS[1], 'probe', 'probe_until')
    end
    return {'open', math.max(0, tonumber(found[1]) - now)}
end
if said ~= 'failed' or not found[4] then return {'closed', 0} end
local failed = redis.call('HINCRBY', KEYS[1], 'failed', 1) + tonumber(found[7])
local made = tonumber(found[4]) + tonumber(found[6])
if failed >= tonumber(ARGV[3]) and failed >= made * ARGV[4] then return open(tonumber(ARGV[5])) end
return {'closed', 0}
""")

_IS_OPEN = Script("return redis.call('HEXISTS', KEYS[1], 'until')")


class RedisBreakers:
    """Breakers shared through Redis. While Redis is away, each worker goes by what it sees itself."""

    def __init__(self, calls: RedisCalls, options: BreakerOptions | None = None) -> None:
        self._calls = calls
        self._options = options or BreakerOptions()
        self._own = MemoryBreakers(self._options)

    async def ask(self, target: str, call_id: str) -> Pass | Open:
        """Whether a call may be made now."""
        options = self._options
        args: list[Argument] = [call_id, int(options.probe_s * 1000), int(options.window_s * 500)]
        try:
            state, wait_ms = await self._calls.run(_ASK, [_key(target)], args)
        except StoreUnavailable:
            return await self._own.ask(target, call_id)
        return Open(wait_ms / 1000) if state == b"open" else Pass(probe=state == b"probe")

    async def tell(self, target: str, call_id: str, *, answered: bool | None) -> Pass | Open:
        """Say whether a model answered; returns how its breaker stands now."""
        options = self._options
        said = {True: "answered", False: "failed", None: "unclear"}[answered]
        args: list[Argument] = [
            call_id,
            said,
            options.failures,
            options.share,
            int(options.open_s * 1000),
            int(options.longest_open_s * 1000),
        ]
        try:
            state, wait_ms = await self._calls.run(_TELL, [_key(target)], args)
        except StoreUnavailable:
            return await self._own.tell(target, call_id, answered=answered)
        return Open(wait_ms / 1000) if state == b"open" else Pass()

    async def is_open(self, target: str) -> bool:
        """Whether it is left alone, until a probe was answered."""
        return bool(await self._calls.run(_IS_OPEN, [_key(target)]))


@dataclass(slots=True)
class _Breaker:
    made: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    until: float | None = None
    open_s: float = 0.0
    probe: str | None = None
    probe_until: float = 0.0


class MemoryBreakers:
    """Breakers of one process; `clock` counts seconds."""

    def __init__(self, options: BreakerOptions | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options or BreakerOptions()
        self._clock = clock
        self._breakers: dict[str, _Breaker] = {}

    async def ask(self, target: str, call_id: str) -> Pass | Open:
        """Whether a call may be made now."""
        breaker, now = self._breakers.setdefault(target, _Breaker()), self._clock()
        if breaker.until is None:
            breaker.made = [at for at in breaker.made if at > now - self._options.window_s]
            breaker.made.append(now)
            return Pass()
        if now < breaker.until:
            return Open(breaker.until - now)
        if breaker.probe not in (None, call_id) and now < breaker.probe_until:
            return Open(min(1.0, breaker.probe_until - now))
        breaker.probe, breaker.probe_until = call_id, now + self._options.probe_s
        return Pass(probe=True)

    async def tell(self, target: str, call_id: str, *, answered: bool | None) -> Pass | Open:
        """Say whether a model answered; returns how its breaker stands now."""
        breaker, now = self._breakers.setdefault(target, _Breaker()), self._clock()
        if breaker.until is not None:
            return self._tell_open(target, breaker, call_id, answered)
        if answered is not False:
            return Pass()
        breaker.failed = [at for at in breaker.failed if at > now - self._options.window_s] + [now]
        failures = len(breaker.failed)
        if failures >= self._options.failures and failures >= len(breaker.made) * self._options.share:
            return self._opened(target, self._options.open_s)
        return Pass()

    async def is_open(self, target: str) -> bool:
        """Whether it is left alone, until a probe was answered."""
        return target in self._breakers and self._breakers[target].until is not None

    def _tell_open(self, target: str, breaker: _Breaker, call_id: str, answered: bool | None) -> Pass | Open:
        if breaker.probe == call_id:
            if answered:
                del self._breakers[target]
                return Pass()
            if answered is False:
                return self._opened(target, min(2 * breaker.open_s, self._options.longest_open_s))
            breaker.probe = None
        assert breaker.until is not None
        return Open(max(0.0, breaker.until - self._clock()))

    def _opened(self, target: str, open_s: float) -> Open:
        self._breakers[target] = _Breaker(until=self._clock() + open_s, open_s=open_s)
        return Open(open_s)


def _key(target: str) -> str:
    return f"breaker:{target}"
