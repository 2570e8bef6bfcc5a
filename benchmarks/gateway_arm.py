"""`python -m benchmarks.gateway_arm`: reads one job as JSON, makes model calls in one way, prints what they took."""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from openai import AsyncOpenAI

from agents.answers import TriageVerdict
from contracts.models import CallContext, ModelRequest, Reuse
from contracts.values import Tier
from llm.openai_provider import OpenAIProvider, connect
from llm.provider import Prompt
from llm.schema import strict_schema
from ops.models import chat_model
from ops.running import run
from ops.settings import read_settings
from state.pool import open_pool

MODEL = "gpt-5.4-mini"
SYSTEM = "Choose the label that says what the message is about."
_WARMUP_S = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """How calls are made, how many at once, and for how long."""

    way: str  # sdk | adapter | gateway | hit
    url: str
    concurrency: int
    seconds: float  # 0: each of `concurrency` calls once


@dataclass(frozen=True, slots=True)
class Took:
    """What the calls of the window took, of this process."""

    calls: int
    cpu_us: float
    p50_ms: float
    grown_mb: float  # resident memory at its most, over what it was before the calls


async def measured(job: Way) -> Took:
    """Make calls from `concurrency` tasks; what happens in the warm-up is not counted."""
    async with _ways[job.way](job) as call:
        await call(0)
        before_mb = _rss_mb()
        if not job.seconds:
            await asyncio.gather(*(call(number) for number in range(1, job.concurrency + 1)))
            return Took(job.concurrency, 0.0, 0.0, _rss_mb() - before_mb)
        numbers = iter(range(1, 10**9))
        took_ms: list[float] = []
        over = asyncio.Event()

        async def again_and_again() -> None:
            while not over.is_set():
                began = time.perf_counter()
                await call(next(numbers))
                took_ms.append((time.perf_counter() - began) * 1e3)

        working = [asyncio.create_task(again_and_again()) for _ in range(job.concurrency)]
        await asyncio.sleep(_WARMUP_S)
        took_ms.clear()
        cpu_s = time.process_time()
        await asyncio.sleep(job.seconds)
        cpu_s, calls = time.process_time() - cpu_s, len(took_ms)
        p50_ms = median(took_ms)
        over.set()
        await asyncio.gather(*working)
        return Took(calls, cpu_s / calls * 1e6, p50_ms, _rss_mb() - before_mb)


@asynccontextmanager
async def _sdk(job: Way):  # type: ignore[no-untyped-def]
    """The SDK's own call, with the same body."""
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "v", "schema": strict_schema(TriageVerdict), "strict": True},
    }
    async with AsyncOpenAI(api_key="key", base_url=f"{job.url}/v1", max_retries=0) as client:

        async def call(number: int) -> None:
            await client.chat.completions.create(
                model=MODEL,
                max_completion_tokens=300,
                messages=_messages(number),
                response_format=form,
                timeout=30,
            )

        yield call


@asynccontextmanager
async def _adapter(job: Way):  # type: ignore[no-untyped-def]
    """What stands at the end of the chain, alone: the same SDK, as the gateway uses it."""
    async with connect("key", f"{job.url}/v1") as client:
        provider = OpenAIProvider(client, MODEL)

        async def call(number: int) -> None:
            await provider.complete(Prompt(_request(_content(number), Reuse.NEVER), _context(number), timeout_s=30))

        yield call


@asynccontextmanager
async def _gateway(job: Way):  # type: ignore[no-untyped-def]
    """Every link of the chain; nothing is asked twice."""
    async with _open_gateway(Reuse.NEVER) as ask:
        yield ask


@asynccontextmanager
async def _hit(job: Way):  # type: ignore[no-untyped-def]
    """The same question again and again, answered from the cache. The journal knows none of these events."""
    async with _open_gateway(Reuse.TENANT) as ask:

        async def call(number: int) -> None:
            await ask(number, content=_content(0))

        yield call


@asynccontextmanager
async def _open_gateway(reuse: Reuse):  # type: ignore[no-untyped-def]
    settings = read_settings()
    async with (
        open_pool(settings.postgres.dsn.get_secret_value(), max_size=10) as pool,
        chat_model([Tier.FAST], settings, pool) as gateway,
    ):

        async def ask(number: int, content: str | None = None) -> None:
            await gateway.ask(_request(content or _content(number), reuse), _context(number))

        yield ask


_ways: dict[str, Callable[[Way], Any]] = {"sdk": _sdk, "adapter": _adapter, "gateway": _gateway, "hit": _hit}


def _request(content: str, reuse: Reuse) -> ModelRequest[TriageVerdict]:
    return ModelRequest(Tier.FAST, SYSTEM, content, TriageVerdict, max_output_tokens=300, reuse=reuse)


def _context(number: int) -> CallContext:
    return CallContext(f"t{number}", "north", f"{os.getpid()}-{number}", "triage", "classify")


def _messages(number: int) -> Any:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": _content(number)}]


def _content(number: int) -> str:
    return f"Where is my order? I have been waiting for {number} days and nobody writes to me. [ticket:t{number}]"


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(asdict(run(measured(Way(**json.loads(sys.stdin.readline())))))), flush=True)
