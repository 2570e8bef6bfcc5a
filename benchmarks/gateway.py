"""gateway: what a model call through the gateway takes over the SDK's own, and what a cached answer takes."""

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.bench import Bench
from benchmarks.database import Databases
from benchmarks.driver import interleaved
from benchmarks.gateway_arm import MODEL, Took, Way
from benchmarks.result import Arm, Result, arm, at_most, machine
from state.migrate import migrate

CONCURRENCY = 50
IN_FLIGHT = 1_000
_LATENCY_MS = 50


async def gateway(bench: Bench, databases: Databases) -> Result:
    """The whole chain (redaction, recording, journal, cache off, fallback, budgets, limits, breaker, the book).

    Redis, PostgreSQL and the stand-in are processes beside the arm's own, whose processor time is what is compared.
    """
    async with databases.fresh() as dsn, standin(_LATENCY_MS) as url, standin(5_000) as slow_url:
        await migrate(dsn)
        seconds = bench.sized(5, 2)
        runs = {
            name: lambda way=way: _measured(way, dsn)
            for name, way in {
                "sdk": Way("sdk", url, CONCURRENCY, seconds),
                "adapter": Way("adapter", url, CONCURRENCY, seconds),
                "gateway": Way("gateway", url, CONCURRENCY, seconds),
                "hit": Way("hit", url, CONCURRENCY, seconds),
                "hit, one at a time": Way("hit", url, 1, seconds),
            }.items()
            if not bench.only or name in bench.only
        }
        slices = await interleaved(runs, bench.slices, bench.told)
        grown = await _measured(Way("gateway", slow_url, IN_FLIGHT, 0), dsn)
    found = {name: [one.found for one in of_arm] for name, of_arm in slices.items()}
    arms: dict[str, Arm] = {
        f"{name}, CPU": arm([one.cpu_us / 1e3 for one in took], "ms a call") for name, took in found.items()
    }
    for below in ("sdk", "adapter"):
        if {below, "gateway"} <= found.keys():
            pairs = zip(found["gateway"], found[below], strict=True)
            over = [(whole.cpu_us - part.cpu_us) / 1e3 for whole, part in pairs]
            arms[f"gateway over {below}"] = arm(over, "ms a call")
    alone = found.get("hit, one at a time", [])
    if alone:
        arms["hit, p50"] = arm([one.p50_ms for one in alone], "ms")
    arms["1,000 in flight"] = arm([grown.grown_mb], "MB more")
    return Result(
        "gateway",
        f"model calls, {CONCURRENCY} at a time, {_LATENCY_MS} ms each",
        arms,
        {},
        [
            at_most("CPU over the bare SDK <= .5 ms a call", _median(arms, "gateway over sdk"), 0.5),
            at_most("CPU of a cache hit <= .4 ms", _median(arms, "hit, CPU"), 0.4),
            at_most("p50 of a cache hit < 1 ms", _median(arms, "hit, p50"), 1.0),
            at_most("1,000 in flight: <= 60 MB more", grown.grown_mb, 60),
        ],
        machine(slices),
    )


def _median(arms: dict[str, Arm], name: str) -> float | None:
    return arms[name].median if name in arms else None


async def _measured(way: Way, dsn: str) -> Took:
    environment = {
        **os.environ,
        "SWITCHYARD_POSTGRES__DSN": dsn,
        "SWITCHYARD_LLM__FAST": f"openai:{MODEL}",
        "SWITCHYARD_LLM__STANDIN_URL": way.url,
        "SWITCHYARD_LLM__BUDGETS": json.dumps({"tenant": {"usd": "1000"}, "ticket": {"usd": "10"}}),
        "SWITCHYARD_LLM__LIMITS": json.dumps({"openai": {"requests": 10_000_000, "tokens": 10_000_000_000}}),
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.gateway_arm"),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await child.communicate(json.dumps(dataclasses.asdict(way)).encode() + b"\n")
    if child.returncode:
        raise RuntimeError(f"the arm {way.way} ended with {child.returncode}")
    said: dict[str, Any] = json.loads(told)
    return Took(**said)


@asynccontextmanager
async def standin(latency_ms: int) -> AsyncIterator[str]:
    """A model stand-in of its own process; its address."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm.standin", "--latency-ms", str(latency_ms)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        yield (await child.stdout.readline()).decode().strip()
    finally:
        child.terminate()
        await child.wait()
