"""The limit link: a call waits until a key of the provider has room for it."""

import asyncio
import heapq
import itertools
import logging
from dataclasses import dataclass, field, replace

from contracts.errors import ModelKeyRefused, ModelRateLimited, ModelsAway, StoreUnavailable
from contracts.model_ports import KeyGranted, KeyLimits, KeyWait, Load, NoKey
from llm.asking import seconds_left
from llm.chain import Ask, Link, Reply
from llm.provider import UNKNOWN, Attempt, Prompt

_log = logging.getLogger(__name__)
_AT_ONCE = 32  # calls that ask for room at the same time: the first of the line
_LONGEST_LOOK_S = 1.0
_LEASE_BESIDES_S = 30.0  # how much longer than its call what was taken for it stays
_REFUSED_FOR_S = 600.0  # a key that is unknown or may not; somebody may mend that
_QUOTA_FOR_S = 3600.0  # a key without money
_PAUSE_S = 5.0  # a key that has had enough and does not say for how long


def limited(lines: "dict[str, Line]") -> Link:
    """Wait for room on a key, and count what was used; `lines` holds one for each provider.

    Raises ModelsAway: no key of the provider may be used. ModelRateLimited: there is no room before the time is up.
    """

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        attempt = prompt.at
        line = lines[attempt.target.provider_name]
        load = Load(1, attempt.hold.tokens - prompt.request.max_output_tokens, prompt.request.max_output_tokens)
        attempt.key = await line.acquire(prompt, load)
        attempt.call = replace(attempt.call, key=attempt.target.keys[attempt.key].tail)
        try:
            return await ask_next(prompt)
        except ModelRateLimited as error:
            pause_s = _PAUSE_S if error.retry_after_s is None else error.retry_after_s
            await line.limits.pause(attempt.key, pause_s)
            raise
        except ModelKeyRefused as error:
            _log.error("key …%s of %s is taken out: %s", attempt.call.key, attempt.target.provider_name, error)
            await line.limits.pause(attempt.key, _QUOTA_FOR_S if error.quota else _REFUSED_FOR_S)
            raise
        finally:
            await _settle(line, attempt, load)

    return link


async def _settle(line: "Line", attempt: Attempt, load: Load) -> None:
    made = attempt.made
    used = Load(1, made.input_tokens, made.output_tokens) if made else None
    try:
        await line.limits.settle(attempt.call.id, attempt.key, load, used)
        if attempt.limit != UNKNOWN:
            await line.limits.correct(attempt.key, attempt.left, attempt.limit)
    except StoreUnavailable as error:  # what was taken lapses
        _log.warning("a key's load cannot be settled: %s", error)
    line.look()


@dataclass(order=True, slots=True)
class _Waiter:
    deadline: float  # seconds since 1970; infinite without one
    place: int
    prompt: Prompt = field(compare=False)
    load: Load = field(compare=False)
    granted: asyncio.Future[int] = field(compare=False)

    @property
    def tenant_id(self) -> str:
        """Whose turn it is."""
        return self.prompt.call.tenant_id

    @property
    def cost(self) -> int:
        """What a grant counts for its tenant."""
        return 1 + self.load.input_tokens + self.load.output_tokens


class Line:
    """Who waits for one provider's keys in this process: fair between tenants, earliest deadline first within one.

    The tenant that has had least goes first; one that was idle starts where the others are, and saves nothing up.
    """

    def __init__(self, limits: KeyLimits) -> None:
        self.limits = limits
        self._tenants: dict[str, list[_Waiter]] = {}
        self._had: dict[str, int] = {}  # by tenant with waiters: the tokens it was granted, from a common start
        self._places = itertools.count()
        self._moved = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def acquire(self, prompt: Prompt, load: Load) -> int:
        """The key to ask with. Raises ModelsAway or ModelRateLimited; see `limited`."""
        if not self._tenants:  # nobody waits: no line, where there is room
            lease_s = prompt.timeout_s + _LEASE_BESIDES_S
            verdict = await self.limits.acquire(prompt.at.call.id, load, lease_s=lease_s)
            if isinstance(verdict, KeyGranted):
                return verdict.key
        deadline = prompt.call.deadline.timestamp() if prompt.call.deadline else float("inf")
        waiter = _Waiter(deadline, next(self._places), prompt, load, asyncio.get_running_loop().create_future())
        self._join(waiter)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout(seconds_left(prompt).timeout_s):
                return await waiter.granted
        except TimeoutError as error:
            raise ModelRateLimited(f"no key of {prompt.at.target.provider_name} has room") from error

    def look(self) -> None:
        """Say that something changed for those who wait."""
        self._moved.set()

    def _join(self, waiter: _Waiter) -> None:
        if waiter.tenant_id not in self._tenants:
            self._tenants[waiter.tenant_id] = []
            self._had[waiter.tenant_id] = min(self._had.values(), default=0)
        heapq.heappush(self._tenants[waiter.tenant_id], waiter)

    async def _serve(self) -> None:
        """Ask for room for the first of the line, again and again, until nobody waits."""
        while first := self._first():
            self._moved.clear()
            waits = [wait_s for wait_s in await asyncio.gather(*map(self._ask, first)) if wait_s is not None]
            for tenant in [tenant for tenant, waiting in self._tenants.items() if not waiting]:
                del self._tenants[tenant], self._had[tenant]
            if waits:
                await self._until_moved(min(_LONGEST_LOOK_S, *waits))

    def _first(self) -> list[_Waiter]:
        """Take the next ones out of the line, as if each of them were granted."""
        first: list[_Waiter] = []
        would_have = {tenant: self._had[tenant] for tenant, waiting in self._tenants.items() if waiting}
        while would_have and len(first) < _AT_ONCE:
            tenant = min(would_have, key=would_have.__getitem__)
            waiter = heapq.heappop(self._tenants[tenant])
            if not waiter.granted.done():  # done: it gave up
                would_have[tenant] += waiter.cost
                first.append(waiter)
            if not self._tenants[tenant]:
                del would_have[tenant]
        return first

    async def _ask(self, waiter: _Waiter) -> float | None:
        """Grant, refuse, or put back into the line; returns how long to wait in the last case."""
        call_id, lease_s = waiter.prompt.at.call.id, waiter.prompt.timeout_s + _LEASE_BESIDES_S
        try:
            verdict = await self.limits.acquire(call_id, waiter.load, lease_s=lease_s)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            _tell(waiter, error)
            return None
        match verdict:
            case KeyGranted(key):
                await self._grant(waiter, key)
            case NoKey(wait_s) if wait_s > waiter.prompt.timeout_s:
                provider = waiter.prompt.at.target.provider_name
                _tell(waiter, ModelsAway(f"no key of {provider} may be used", retry_after_s=wait_s))
            case NoKey(wait_s) | KeyWait(wait_s):
                heapq.heappush(self._tenants[waiter.tenant_id], waiter)
                return wait_s
        return None

    async def _grant(self, waiter: _Waiter, key: int) -> None:
        self._had[waiter.tenant_id] += waiter.cost
        if waiter.granted.done():  # it gave up meanwhile
            await self.limits.settle(waiter.prompt.at.call.id, key, waiter.load, None)
        else:
            waiter.granted.set_result(key)

    async def _until_moved(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._moved.wait()
        except TimeoutError:
            return


def _tell(waiter: _Waiter, error: Exception) -> None:
    if not waiter.granted.done():
        waiter.granted.set_exception(error)
