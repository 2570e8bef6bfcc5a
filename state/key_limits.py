"""What a provider's API keys took in the last minute: a sliding window in Redis, counted for all workers."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from contracts.model_ports import KeyGranted, KeyWait, Load, NoKey
from state.redis_calls import Argument, RedisCalls, Script

SLOT_MS = 250
"""What is taken within one slot leaves the window together, when its youngest may."""
ON_THE_WAY_MS = 2000
"""So late may a request reach the provider. Until it is answered, or for so long, it counts as not there yet."""
_PACE_OVER_MS = 10_000  # of a window of a minute; in shorter ones less
_PACE_OVER_AT_LEAST_MS = 1_000

# A key is a hash: r, i, o, t are the requests, input, output and both tokens taken in the window; ho the output that
# calls under way may still have; `until` the end of a pause. Beside it: a sorted set of its slots, a hash for each of
# them, and the leases of its calls. Who holds what stands in the pool's hash of calls.
_COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window_ms, slot_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local function slot_at(ms) return ms - ms % slot_ms end
local function number(value) return tonumber(value or 0) or 0 end
local function add(key, slot, r, i, o, t)
    local amounts = {r = r, i = i, o = o, t = t}
    for name, amount in pairs(amounts) do
        if amount ~= 0 then
            redis.call('HINCRBY', key, name, amount)
            redis.call('HINCRBY', key .. ':' .. slot, name, amount)
        end
    end
    redis.call('ZADD', key .. ':slots', slot, slot)
    redis.call('PEXPIRE', key .. ':' .. slot, window_ms * 2)
end
local function expire(key)
    local past = redis.call('ZRANGEBYSCORE', key .. ':slots', '-inf', now - window_ms - slot_ms)
    for _, slot in ipairs(past) do
        for _, name in ipairs({'r', 'i', 'o', 't'}) do
            local amount = number(redis.call('HGET', key .. ':' .. slot, name))
            if amount ~= 0 then redis.call('HINCRBY', key, name, -amount) end
        end
        redis.call('DEL', key .. ':' .. slot)
        redis.call('ZREM', key .. ':slots', slot)
    end
    if redis.call('ZCARD', key .. ':slots') == 0 then redis.call('HDEL', key, 'r', 'i', 'o', 't') end
end
local function let_go(calls, key, id)
    local held = redis.call('HGET', calls, id)
    if not held then return nil end
    local place, slot, i, o = string.match(held, '^(%d+)|(%d+)|(%d+)|(%d+)$')
    redis.call('HDEL', calls, id)
    redis.call('ZREM', key .. ':leases', id)
    redis.call('HINCRBY', key, 'ho', -tonumber(o))
    return slot, tonumber(i)
end
"""

_ACQUIRE = Script(
    _COMMON
    + """
local calls, id = KEYS[1], ARGV[3]
local wanted = {r = tonumber(ARGV[4]), i = tonumber(ARGV[5]), o = tonumber(ARGV[6])}
local limit = {r = tonumber(ARGV[7]), i = tonumber(ARGV[8]), o = tonumber(ARGV[9]), t = tonumber(ARGV[10])}
local lease_ms = tonumber(ARGV[11])
local held = redis.call('HGET', calls, id)
if held then return {'granted', tonumber(string.match(held, '^(%d+)|'))} end
local best, best_room, wait_ms, out_ms = nil, -1, nil, nil
for place = 2, #KEYS do
    local key = KEYS[place]
    expire(key)
    for _, dead in ipairs(redis.call('ZRANGEBYSCORE', key .. ':leases', '-inf', now)) do let_go(calls, key, dead) end
    local found = redis.call('HMGET', key, 'r', 'i', 'o', 't', 'ho', 'until')
    local pause_ms = number(found[6]) - now
    if pause_ms > 0 then
        if not out_ms or pause_ms < out_ms then out_ms = pause_ms end
    else
        local ho = number(found[5])
        local used = {r = number(found[1]), i = number(found[2]), o = number(found[3]) + ho, t = number(found[4]) + ho}
        local more = {r = wanted.r, i = wanted.i, o = wanted.o, t = wanted.i + wanted.o}
        local room = 1
        for name, most in pairs(limit) do
            if most > 0 then
                local left = (most - used[name] - math.min(more[name], most)) / most
                if left < room then room = left end
            end
        end
        if room >= 0 then
            if room > best_room then best, best_room = place - 2, room end
        else
            local oldest = redis.call('ZRANGE', key .. ':slots', 0, 0)
            local frees_ms = oldest[1] and oldest[1] + window_ms + slot_ms - now or 50
            if ho > 0 and frees_ms > 50 then frees_ms = 50 end
            if not wait_ms or frees_ms < wait_ms then wait_ms = frees_ms end
        end
    end
end
if not best then
    if wait_ms then return {'wait', math.ceil(math.max(5, wait_ms))} end
    return {'out', math.ceil(out_ms or 1000)}
end
local key, slot = KEYS[best + 2], slot_at(now)
add(key, slot, wanted.r, wanted.i, 0, wanted.i)
redis.call('HINCRBY', key, 'ho', wanted.o)
redis.call('HSET', calls, id, best .. '|' .. string.format('%d', slot) .. '|' .. wanted.i .. '|' .. wanted.o)
redis.call('ZADD', key .. ':leases', now + lease_ms, id)
return {'granted', best}
"""
)

# A request leaves the window a minute after it may have reached the provider at the latest, which is when it was
# answered, so that nothing depends on how long requests take to get there; output a minute after it was there.
_SETTLE = Script(
    _COMMON
    + """
local key = KEYS[2]
local r, i, o = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local slot, counted = let_go(KEYS[1], key, ARGV[3])
if not slot then return 0 end
if redis.call('ZSCORE', key .. ':slots', slot) then
    add(key, slot, -tonumber(ARGV[7]), -counted, 0, -counted)
    local there = math.min(now, tonumber(slot) + slot_ms + tonumber(ARGV[8]))
    if r > 0 then add(key, string.format('%d', slot_at(there)), r, i, 0, i) end
end
if o > 0 then add(key, string.format('%d', slot_at(now)), 0, 0, o, o) end
return 1
"""
)

_PAUSE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = now + tonumber(ARGV[1])
local found = tonumber(redis.call('HGET', KEYS[1], 'until') or 0)
if until_ms > found then redis.call('HSET', KEYS[1], 'until', string.format('%d', until_ms)) end
return 1
""")

_CORRECT = Script(
    _COMMON
    + """
local key, foreign, names = KEYS[1], {0, 0, 0, 0}, {'r', 'i', 'o', 't'}
expire(key)
for place, name in ipairs(names) do
    local left, limit = tonumber(ARGV[2 + 2 * place - 1]), tonumber(ARGV[2 + 2 * place])
    if left >= 0 and limit > 0 then
        local ours = number(redis.call('HGET', key, name))
        if limit - left > ours then foreign[place] = limit - left - ours end
    end
end
if foreign[1] + foreign[2] + foreign[3] + foreign[4] > 0 then
    add(key, string.format('%d', slot_at(now)), foreign[1], foreign[2], foreign[3], foreign[4])
end
return foreign
"""
)

# Reads only: what left the window, and the holds of the dead, are still there until the next call takes them out.
_LOOK = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window_ms, slot_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local lately_ms, short_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local limit = {tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])}
local function number(value) return tonumber(value or 0) or 0 end
local used, lately, since, keys = {0, 0, 0, 0}, {0, 0, 0, 0}, now, 0
local function add(sums, key, sign)
    for place, amount in ipairs(redis.call('HMGET', key, 'r', 'i', 'o', 't')) do
        sums[place] = sums[place] + sign * number(amount)
    end
end
for place = 2, #KEYS do
    local key = KEYS[place]
    if number(redis.call('HGET', key, 'until')) <= now then
        keys = keys + 1
        add(used, key, 1)
        for _, slot in ipairs(redis.call('ZRANGEBYSCORE', key .. ':slots', '-inf', now - window_ms - slot_ms)) do
            add(used, key .. ':' .. slot, -1)
        end
        for _, slot in ipairs(redis.call('ZRANGEBYSCORE', key .. ':slots', '(' .. (now - lately_ms), '+inf')) do
            add(lately, key .. ':' .. slot, 1)
            since = math.min(since, tonumber(slot))
        end
        local held = number(redis.call('HGET', key, 'ho'))
        for _, dead in ipairs(redis.call('ZRANGEBYSCORE', key .. ':leases', '-inf', now)) do
            held = held - number(string.match(redis.call('HGET', KEYS[1], dead) or '', '(%d+)$'))
        end
        used[3], used[4] = used[3] + held, used[4] + held
    end
end
if keys == 0 then return '1' end
local share, passed_ms = 0, math.max(short_ms, now - since)
for place, most in ipairs(limit) do
    if most > 0 then
        share = math.max(share, used[place] / most / keys, lately[place] / passed_ms * window_ms / most / keys)
    end
end
return tostring(share)
"""
)


class RedisKeyLimits:
    """KeyLimits of one provider's pool of keys, in Redis."""

    def __init__(
        self, calls: RedisCalls, pool: str, key_ids: Sequence[str], a_minute: Load, *, window_s: float = 60.0
    ) -> None:
        """`a_minute` is what each key takes in `window_s`. Ids are digests: no key is told to Redis."""
        self._calls = calls
        self._table = f"{{limits:{pool}}}:calls"
        self._keys = [f"{{limits:{pool}}}:{key_id}" for key_id in key_ids]
        self._limit = a_minute
        self._window = [int(window_s * 1000), SLOT_MS]

    async def acquire(self, call_id: str, load: Load, *, lease_s: float) -> KeyGranted | KeyWait | NoKey:
        """Take room for a call on the key that has most of it."""
        wanted = [load.requests, load.input_tokens, load.output_tokens]
        args: list[Argument] = [*self._window, call_id, *wanted, *self._limit, int(lease_s * 1000)]
        verdict, figure = await self._calls.run(_ACQUIRE, [self._table, *self._keys], args)
        match verdict:
            case b"granted":
                return KeyGranted(figure)
            case b"wait":
                return KeyWait(figure / 1000)
        return NoKey(figure / 1000)

    async def settle(self, call_id: str, key: int, load: Load, used: Load | None) -> None:
        """Put what was used in the place of what was taken; None: the call was not made."""
        used = used or Load()
        amounts = [used.requests, used.input_tokens, used.output_tokens, load.requests]
        args: list[Argument] = [*self._window, call_id, *amounts, ON_THE_WAY_MS]
        await self._calls.run(_SETTLE, [self._table, self._keys[key]], args)

    async def pause(self, key: int, wait_s: float) -> None:
        """Leave a key alone for a while."""
        await self._calls.run(_PAUSE, [self._keys[key]], [int(wait_s * 1000)])

    async def correct(self, key: int, left: Load, limit: Load) -> None:
        """Count what others used, where the provider says that less is left than we took."""
        pairs = [figure for pair in zip(left, limit, strict=True) for figure in pair]
        await self._calls.run(_CORRECT, [self._keys[key]], [*self._window, *pairs])

    async def share_used(self) -> float | None:
        """The share of the tightest limit that is taken, or will be at the pace of the last seconds."""
        if not any(self._limit):
            return None
        args: list[Argument] = [*self._window, _pace_over_ms(self._window[0]), _PACE_OVER_AT_LEAST_MS, *self._limit]
        return float(await self._calls.run(_LOOK, [self._table, *self._keys], args))


@dataclass(slots=True)
class _Used:
    paused_until: float = 0.0
    taken: deque[tuple[float, Load]] = field(default_factory=deque)  # when, what
    holds: dict[str, tuple[float, Load]] = field(default_factory=dict)  # when taken, what

    def recent(self, since: float) -> list[tuple[float, Load]]:
        """What was taken since then: of a call under way, what it asks with."""
        asked = ((at, Load(load.requests, load.input_tokens, 0, load.input_tokens)) for at, load in self.holds.values())
        return [(at, load) for at, load in (*self.taken, *asked) if at > since]


def _pace_over_ms(window_ms: float) -> int:
    """Over how long the pace is seen: in a model call's time at least, and not so long that it comes late."""
    return int(max(_PACE_OVER_AT_LEAST_MS, min(_PACE_OVER_MS, window_ms / 6)))


def _added(loads: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(Load(), *loads, strict=True)]


class MemoryKeyLimits:
    """KeyLimits of one process, to the call; `clock` counts seconds."""

    def __init__(
        self, keys: int, a_minute: Load | None = None, *, window_s: float = 60.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = [_Used() for _ in range(keys)]
        self._limit = a_minute or Load()
        self._window_s = window_s
        self._clock = clock

    async def acquire(self, call_id: str, load: Load, *, lease_s: float) -> KeyGranted | KeyWait | NoKey:
        """Take room for a call on the key that has most of it."""
        now = self._clock()
        awake = [place for place, key in enumerate(self._keys) if key.paused_until <= now]
        if not awake:
            return NoKey(min(key.paused_until for key in self._keys) - now)
        room, best = max((self._room(self._keys[place], load, now), -place) for place in awake)
        if room < 0:
            return KeyWait(0.05)
        self._keys[-best].holds[call_id] = (now, load)
        return KeyGranted(-best)

    async def settle(self, call_id: str, key: int, load: Load, used: Load | None) -> None:
        """Put what was used in the place of what was taken."""
        held = self._keys[key].holds.pop(call_id, None)
        if held is None or used is None:
            return
        taken = self._keys[key].taken
        now = self._clock()
        there = min(now, held[0] + ON_THE_WAY_MS / 1000)
        taken.append((held[0], Load()))  # when it began
        taken.append((there, Load(used.requests, used.input_tokens, 0, used.input_tokens)))
        taken.append((now, Load(0, 0, used.output_tokens, used.output_tokens)))

    async def pause(self, key: int, wait_s: float) -> None:
        """Leave a key alone for a while."""
        self._keys[key].paused_until = max(self._keys[key].paused_until, self._clock() + wait_s)

    async def correct(self, key: int, left: Load, limit: Load) -> None:
        """Count what others used, where the provider says that less is left than we took."""
        now = self._clock()
        ours = self._sum(self._keys[key], now)
        foreign = [
            most - rest - own if rest >= 0 and most > 0 else 0
            for rest, most, own in zip(left, limit, ours, strict=True)
        ]
        if max(foreign) > 0:
            self._keys[key].taken.append((now, Load(*(max(0, more) for more in foreign))))

    async def share_used(self) -> float | None:
        """The share of the tightest limit that is taken, or will be at the pace of the last seconds."""
        now = self._clock()
        awake = [key for key in self._keys if key.paused_until <= now]
        if not self._limited:
            return None
        if not awake:
            return 1.0
        used = _added(self._sum(key, now) for key in awake)
        recent = [entry for key in awake for entry in key.recent(now - _pace_over_ms(self._window_s * 1000) / 1000)]
        lately = _added(load for _, load in recent)
        passed_s = max(_PACE_OVER_AT_LEAST_MS / 1000, now - min((at for at, _ in recent), default=now))
        shares = [
            max(taken, fresh / passed_s * self._window_s) / most / len(awake)
            for most, taken, fresh in zip(self._limit, used, lately, strict=True)
            if most > 0
        ]
        return max(shares)

    def _room(self, key: _Used, load: Load, now: float) -> float:
        """The smallest share of a limit that is left once the call has its own; below 0: it does not fit."""
        used = self._sum(key, now)
        more = load._replace(tokens=load.input_tokens + load.output_tokens)
        shares = [
            (most - taken - min(wanted, most)) / most
            for most, taken, wanted in zip(self._limit, used, more, strict=True)
            if most > 0
        ]
        return min(shares, default=1.0 - len(key.holds) / 1e9)

    def _sum(self, key: _Used, now: float) -> list[int]:
        key.taken = (
            deque((at, load) for at, load in key.taken if at > now - self._window_s) if self._limited else deque()
        )
        held = [load._replace(tokens=load.input_tokens + load.output_tokens) for _, load in key.holds.values()]
        return _added([*(load for _, load in key.taken), *held])

    @property
    def _limited(self) -> bool:
        return any(self._limit)
