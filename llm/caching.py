"""The cache link: an answer that may be given again is bought once, however many ask at the same time."""

import asyncio
import json
import random
import uuid
from dataclasses import dataclass, field, replace
from decimal import Decimal

from contracts.errors import ModelUnavailable
from contracts.model_ports import Flights
from contracts.models import Reuse
from contracts.ports import AnswerCache
from llm.chain import Ask, Link, Reply
from llm.judge import usable
from llm.metrics import Metrics
from llm.provider import Prompt

LEASE_S = 3.0
"""A leader that is dead makes the others wait for so long."""
_POLL_S = (0.01, 0.02, 0.05, 0.1)


def cached(cache: AnswerCache, flights: Flights, ttl_s: float, metrics: Metrics) -> Link:
    """Answer from the cache where the request allows it; on a miss one asks, and the others wait for its answer."""
    return _Cached(cache, flights, ttl_s, metrics).link


@dataclass(slots=True)
class _Cached:
    cache: AnswerCache
    flights: Flights
    ttl_s: float
    metrics: Metrics
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    here: dict[str, asyncio.Future[Reply | None]] = field(default_factory=dict)  # led or waited for in this process

    async def link(self, ask_next: Ask, prompt: Prompt) -> Reply:
        if prompt.request.reuse is Reuse.NEVER:
            return await ask_next(prompt)
        whose = prompt.call.tenant_id if prompt.request.reuse is Reuse.TENANT else ""
        # A repaired answer answers the request, too.
        digest = (replace(prompt, repair=None) if prompt.repair else prompt).digest()
        if found := await self._found(whose, digest, prompt):
            return found
        flight = f"{digest}:{whose}"
        while (waiting := self.here.get(flight)) is not None:
            reply = await _landed(waiting, prompt.timeout_s)
            if reply is not None:
                self.metrics.hit(prompt, Decimal(0))
                return reply.model_copy(update={"paid": None})
        landing = self.here[flight] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._one_of_all(flight, whose, digest, ask_next, prompt)
            landing.set_result(reply)
            return reply
        finally:
            del self.here[flight]
            if not landing.done():
                landing.set_result(None)  # the next one who waits asks

    async def _one_of_all(self, flight: str, whose: str, digest: str, ask_next: Ask, prompt: Prompt) -> Reply:
        """Ask, or wait for the process that does; when its lease ends without an answer, ask after all."""
        loop = asyncio.get_running_loop()
        give_up_at, looks = loop.time() + prompt.timeout_s, 0
        while not await self.flights.lead(flight, self.owner, lease_s=LEASE_S):
            if loop.time() > give_up_at:
                raise ModelUnavailable("whoever asks the same did not get an answer in time")
            await asyncio.sleep(random.uniform(0.5, 1.0) * _POLL_S[min(looks, len(_POLL_S) - 1)])
            looks += 1
            if found := await self._found(whose, digest, prompt):
                return found
        keeping = asyncio.create_task(self._keep_lead(flight))
        try:
            if found := await self._found(whose, digest, prompt):  # the last leader landed just now
                return found
            self.metrics.miss(prompt)
            reply = await ask_next(prompt)
            if usable(reply.text, prompt.request.answer):
                await self.cache.put(whose, digest, _entry(reply), self.ttl_s)
            return reply
        finally:
            keeping.cancel()
            await self.flights.land(flight, self.owner)

    async def _keep_lead(self, flight: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self.flights.lead(flight, self.owner, lease_s=LEASE_S)

    async def _found(self, whose: str, digest: str, prompt: Prompt) -> Reply | None:
        """What the cache has, if it is an answer: what is poisoned, cut or of an older schema is none."""
        kept = await self.cache.get(whose, digest)
        if kept is None:
            return None
        try:
            entry = json.loads(kept)
            text, cost_usd = str(entry["text"]), Decimal(entry["cost_usd"])
        except (ValueError, TypeError, KeyError, ArithmeticError):
            return None
        if not usable(text, prompt.request.answer):
            return None
        self.metrics.hit(prompt, cost_usd)
        return Reply(text=text)


async def _landed(waiting: asyncio.Future[Reply | None], timeout_s: float) -> Reply | None:
    """What the leader here got; None: nothing, and its place is free. Raises ModelUnavailable: not in time."""
    done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
    if not done:
        raise ModelUnavailable("whoever asks the same did not get an answer in time")
    return waiting.result()


def _entry(reply: Reply) -> bytes:
    cost_usd = reply.paid.cost_usd if reply.paid else Decimal(0)
    return json.dumps({"text": reply.text, "cost_usd": str(cost_usd)}).encode("utf-8", "surrogatepass")
