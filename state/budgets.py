"""Budgets in Redis, rebuilt from the book of calls in PostgreSQL whenever Redis has lost them."""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from decimal import Decimal

from contracts.errors import StoreUnavailable
from contracts.model_ports import Budget, Busy, Granted, Hold, ProviderCall, Spent
from state.model_calls import Alert, PostgresModelCalls
from state.redis_calls import Argument, RedisCalls, Script

_log = logging.getLogger(__name__)

NANO = Decimal(1_000_000_000)  # money is counted in whole nano-dollars
_EPOCH = "{budget}:epoch"
_KEPT_MS = 3 * 24 * 3600 * 1000  # longer than any window; a ticket's are read from the book again
_LOADING_MS = 10_000
_LOADING_POLL_S = 0.02

OPENED_WITHIN_S = 1.5
"""From asking Redis to the row in the book; what takes longer is given back."""
AFTER_FLUSH_S = 2.0
"""Nothing is granted for so long once Redis turns out empty: what was granted before is in the book by then."""

# A budget is a hash (usd, tokens: settled; held_usd, held_tokens; told_usd, told_tokens: the last level told, as far as
# it knows), a sorted set of its holds by the end of their leases, and a set of those that lapsed and may settle yet.
# It is never dropped: what was granted a moment ago may not be in the book yet, so reading it again would forget that.
_RESERVE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then return {'flushed'} end
local member, usd, tokens, lease_ms, kept_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local count = (#KEYS - 1) / 3
local missing, here = {}, {}
for i = 1, count do
    local budget, holds = KEYS[3 * i - 1], KEYS[3 * i]
    if redis.call('EXISTS', budget) == 0 then missing[#missing + 1] = i
    else
        local late = redis.call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, 100)
        if #late > 0 then return {'late', i, unpack(late)} end
        here[i] = redis.call('ZSCORE', holds, member)
    end
end
if #missing > 0 then return {'missing', unpack(missing)} end
local busy = 0
local spent = nil
for i = 1, count do
    if not here[i] then
        local found = redis.call('HMGET', KEYS[3 * i - 1], 'usd', 'tokens', 'held_usd', 'held_tokens')
        local limits = {tonumber(ARGV[4 + 2 * i]), tonumber(ARGV[5 + 2 * i])}
        local wanted = {tonumber(usd), tonumber(tokens)}
        for unit = 1, 2 do
            if limits[unit] >= 0 then
                local settled = tonumber(found[unit]) + wanted[unit]
                if settled > limits[unit] then
                    local names = {'told_usd', 'told_tokens'}
                    local told = tonumber(redis.call('HGET', KEYS[3 * i - 1], names[unit]))
                    if told < 100 then redis.call('HSET', KEYS[3 * i - 1], names[unit], 100) end
                    spent = spent or {'spent', i, unit, found[unit], told < 100 and 1 or 0}
                elseif settled + tonumber(found[unit + 2]) > limits[unit] and busy == 0 then busy = i end
            end
        end
    end
end
if spent then return spent end
if busy > 0 then return {'busy', busy} end
for i = 1, count do
    if not here[i] then
        redis.call('HINCRBY', KEYS[3 * i - 1], 'held_usd', usd)
        redis.call('HINCRBY', KEYS[3 * i - 1], 'held_tokens', tokens)
        redis.call('ZADD', KEYS[3 * i], now + lease_ms, member)
        redis.call('PEXPIRE', KEYS[3 * i - 1], kept_ms)
        redis.call('PEXPIRE', KEYS[3 * i], kept_ms)
    end
end
return {'granted'}
""")

# A budget that does not know the hold was read from the book when that had what the call came to already.
_SETTLE = Script("""
local member, held_usd, held_tokens, usd, tokens = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local reached = {}
for i = 1, #KEYS / 3 do
    local budget, holds, loading = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
    if redis.call('EXISTS', budget) == 0 then
        if redis.call('EXISTS', loading) == 1 then redis.call('SET', loading, 'again', 'KEEPTTL') end
    else
        local known = redis.call('SREM', holds .. ':lapsed', member) == 1
        if redis.call('ZREM', holds, member) == 1 then
            known = true
            redis.call('HINCRBY', budget, 'held_usd', '-' .. held_usd)
            redis.call('HINCRBY', budget, 'held_tokens', '-' .. held_tokens)
        end
        local more = known and {usd, tokens} or {0, 0}
        local spent = {redis.call('HINCRBY', budget, 'usd', more[1]), redis.call('HINCRBY', budget, 'tokens', more[2])}
        local names = {'told_usd', 'told_tokens'}
        for unit = 1, 2 do
            local limit = tonumber(ARGV[4 + 2 * i + unit - 1])
            if limit > 0 then
                local told = tonumber(redis.call('HGET', budget, names[unit]))
                for _, level in ipairs({50, 80, 100}) do
                    if level > told and spent[unit] * 100 >= limit * level then
                        redis.call('HSET', budget, names[unit], level)
                        reached[#reached + 1] = {i, unit, level, tostring(spent[unit])}
                    end
                end
            end
        end
    end
end
return reached
""")

# The lease of a call is over that is not finished by the book.
_LAPSE = Script("""
for _, late in ipairs(ARGV) do
    if redis.call('ZREM', KEYS[2], late) == 1 then
        local usd, tokens = string.match(late, '|(%d+)|(%d+)$')
        redis.call('HINCRBY', KEYS[1], 'held_usd', '-' .. usd)
        redis.call('HINCRBY', KEYS[1], 'held_tokens', '-' .. tokens)
        redis.call('SADD', KEYS[2] .. ':lapsed', late)
    end
end
return 1
""")

# Only what is not there is loaded: who found it missing may come when others have loaded it, and granted from it.
_START_LOADING = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local loads = redis.call('GET', KEYS[3])
if loads and loads ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
return 1
""")
_STOP_LOADING = Script("if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end return 1")
_LOAD = Script("""
local loads = redis.call('GET', KEYS[3])
if loads == ARGV[1] or loads == 'again' then redis.call('DEL', KEYS[3]) end
if loads ~= ARGV[1] or redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', KEYS[2], KEYS[2] .. ':lapsed')
redis.call('HSET', KEYS[1], 'usd', ARGV[2], 'tokens', ARGV[3], 'held_usd', ARGV[4], 'held_tokens', ARGV[5],
           'told_usd', 0, 'told_tokens', 0)
for i = 7, #ARGV, 2 do
    if tonumber(ARGV[i + 1]) > 0 then redis.call('ZADD', KEYS[2], now + ARGV[i + 1], ARGV[i])
    else redis.call('SADD', KEYS[2] .. ':lapsed', ARGV[i]) end
end
redis.call('PEXPIRE', KEYS[2] .. ':lapsed', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1
""")

# Who notes the loss first waits, and then begins anew, unless there was another loss meanwhile: the note is gone then.
_NOTE_LOSS = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 'over' end
return redis.call('SET', KEYS[1] .. ':noted', ARGV[1], 'NX', 'PX', ARGV[2]) and 'noted' or 'others'
""")
_BEGIN_ANEW = Script("""
if redis.call('GET', KEYS[1] .. ':noted') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '1')
redis.call('DEL', KEYS[1] .. ':noted')
return 1
""")

_LOOK = Script("return redis.call('HMGET', KEYS[1], 'usd', 'tokens')")


class RedisBudgets:
    """Budgets counted in Redis. Losing it costs two seconds: the book in PostgreSQL is the truth.

    Whatever is granted is in the book before the call is made, and what it came to before the hold is settled.
    """

    def __init__(self, calls: RedisCalls, book: PostgresModelCalls) -> None:
        self._calls = calls
        self._book = book
        self._flushed: asyncio.Task[None] | None = None
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def reserve(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> Granted | Busy | Spent:
        """Set aside, and open the call in the book; see `contracts.model_ports.Budgets`."""
        keys = [_EPOCH, *(key for budget in budgets for key in _keys(budget))]
        usd, tokens = _nano(hold.usd), hold.tokens
        head: list[Argument] = [_member(call.id, hold), usd, tokens, int(hold.lease_s * 1000), _KEPT_MS]
        args = [*head, *(limit for budget in budgets for limit in _limits(budget))]
        while True:
            asked_s = time.monotonic()
            verdict, *more = await self._calls.run(_RESERVE, keys, args)
            match verdict:
                case b"granted":
                    if await self._opened(call, hold, budgets, asked_s):
                        return Granted()
                case b"flushed":
                    await self._until_the_book_is_whole()
                case b"missing":
                    await asyncio.gather(*(self._loaded(budgets[place - 1]) for place in more))
                case b"late":
                    await self._reconcile(budgets[more[0] - 1], [member.decode() for member in more[1:]])
                case b"busy":
                    return Busy(budgets[more[0] - 1])
                case _:
                    place, unit, spent, is_first = more
                    if is_first:
                        await self._tell(budgets[place - 1], unit, 100, int(spent), call)
                    return Spent(budgets[place - 1])

    async def settle(
        self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget], *, usd: Decimal, tokens: int
    ) -> None:
        """Turn a hold into what the call came to."""
        keys = [key for budget in budgets for key in _keys(budget)]
        head: list[Argument] = [_member(call.id, hold), _nano(hold.usd), hold.tokens, _nano(usd), tokens]
        limits = [limit for budget in budgets for limit in _limits(budget)]
        for place, unit, level, spent in await self._calls.run(_SETTLE, keys, [*head, *limits]):
            await self._tell(budgets[place - 1], unit, level, int(float(spent)), call)

    async def release(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget]) -> None:
        """Give a hold back: the call was not made."""
        await self._book.drop(call.id)
        await self.settle(call, hold, budgets, usd=Decimal(0), tokens=0)

    async def share_spent(self, budgets: Sequence[Budget]) -> float:
        """The largest share of these budgets that is settled; of one that Redis does not know, by the book."""
        return max([await self._share_spent(budget) for budget in budgets], default=0.0)

    async def _share_spent(self, budget: Budget) -> float:
        usd, tokens = await self._calls.run(_LOOK, _keys(budget)[:1])
        if usd is None:
            sums = await self._book.sums(budget)
            usd, tokens = _nano(sums.usd), sums.tokens
        spent = (int(float(usd)), int(float(tokens)))
        shares = (_share(amount, limit) for amount, limit in zip(spent, _limits(budget), strict=True) if limit >= 0)
        return max(shares, default=0.0)

    async def _opened(self, call: ProviderCall, hold: Hold, budgets: Sequence[Budget], asked_s: float) -> bool:
        """Whether the call came into the book in time; if not, its hold is given back."""
        await self._book.open(call, hold)
        if time.monotonic() - asked_s <= OPENED_WITHIN_S:
            return True
        _log.warning("a hold is given back: the book took too long to open a call")
        await self.release(call, hold, budgets)
        return False

    async def _until_the_book_is_whole(self) -> None:
        """After Redis lost everything: wait until what it had granted is in the book. One waits for all."""
        if self._flushed is None or self._flushed.done():
            self._flushed = asyncio.create_task(self._begin_anew())
        await asyncio.shield(self._flushed)

    async def _begin_anew(self) -> None:
        _log.warning("Redis holds no budgets: they are read from the book of calls again")
        token = uuid.uuid4().hex
        while (state := await self._calls.run(_NOTE_LOSS, [_EPOCH], [token, _LOADING_MS])) != b"over":
            if state == b"noted":
                await asyncio.sleep(AFTER_FLUSH_S)
                await self._calls.run(_BEGIN_ANEW, [_EPOCH], [token])
            else:
                await asyncio.sleep(_LOADING_POLL_S)

    async def _reconcile(self, budget: Budget, members: Sequence[str]) -> None:
        """Settle holds whose leases are over for what the book says, and let those go that it has not finished."""
        finished = await self._book.finished([member.partition("|")[0] for member in members])
        for member in members:
            id_, usd, tokens = member.split("|")
            if id_ in finished:
                cost_usd, used = finished[id_]
                args: list[Argument] = [member, usd, tokens, _nano(cost_usd), used, *_limits(budget)]
                await self._calls.run(_SETTLE, _keys(budget), args)
        await self._calls.run(_LAPSE, _keys(budget), [m for m in members if m.partition("|")[0] not in finished])

    async def _loaded(self, budget: Budget) -> None:
        """Have a budget read from the book, by one for all of this process. The caller looks again in any case."""
        loading = self._loading.get(_keys(budget)[0])
        if loading is None:
            loading = self._loading[_keys(budget)[0]] = asyncio.create_task(self._load(budget))
            loading.add_done_callback(lambda _: self._loading.pop(_keys(budget)[0]))
        await asyncio.shield(loading)

    async def _load(self, budget: Budget) -> None:
        """Read a budget from the book, or wait while another process does."""
        keys, token = _keys(budget), uuid.uuid4().hex
        if not await self._calls.run(_START_LOADING, keys, [token, _LOADING_MS]):
            await asyncio.sleep(_LOADING_POLL_S)
            return
        try:
            sums = await self._book.sums(budget)
        except StoreUnavailable:
            await self._calls.run(_STOP_LOADING, keys, [token])  # whoever comes next may try at once
            raise
        usd, held_usd = _nano(sums.usd), sum(_nano(hold.usd) for hold in sums.held.values())
        held_tokens = sum(hold.tokens for hold in sums.held.values())
        members: list[Argument] = []
        for id_, hold in {**sums.held, **sums.lapsed}.items():
            members += [_member(id_, hold), int(hold.lease_s * 1000)]
        args = [token, usd, sums.tokens, held_usd, held_tokens, _KEPT_MS, *members]
        await self._calls.run(_LOAD, keys, args)

    async def _tell(self, budget: Budget, unit: int, level: int, spent: int, call: ProviderCall) -> None:
        name, divisor = ("usd", float(NANO)) if unit == 1 else ("tokens", 1.0)
        _log.warning("budget of %s at %d %% of its %s", budget.scope, level, name, extra={"scope_id": budget.scope_id})
        await self._book.tell(Alert(budget, name, level, spent / divisor, call))


def _keys(budget: Budget) -> tuple[str, str, str]:
    key = f"{{budget}}:{budget.scope}:{budget.window}:{budget.scope_id}"
    return key, f"{key}:holds", f"{key}:loading"


def _limits(budget: Budget) -> tuple[int, int]:
    return (-1 if budget.usd is None else _nano(budget.usd)), (-1 if budget.tokens is None else budget.tokens)


def _share(spent: int, limit: int) -> float:
    return spent / limit if limit else 1.0


def _member(call_id: str, hold: Hold) -> str:
    return f"{call_id}|{_nano(hold.usd)}|{hold.tokens}"


def _nano(usd: Decimal) -> int:
    return int((usd * NANO).to_integral_value(rounding="ROUND_CEILING"))
