"""The scenarios: what is set up, what is done to it, and what the ledger says afterwards."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

from tests.fleet.fleet import MODEL_A, MODEL_B, PROCESSES, StandIn, fleet, standin

PLAIN = {"FAST": MODEL_A, "RECORDINGS": "off"}


async def same_question(dsn: str, redis_url: str, folder: Path, *, calls: int) -> dict[str, Any]:
    """The same question, asked by all processes at once."""
    job = {"calls": calls // PROCESSES, "same": True, "reuse": "tenant"}
    async with standin(folder, latency_s=1.0) as model, fleet(dsn, redis_url, model, job, PLAIN) as processes:
        processes.begin()
        ends, _ = await processes.ended()
        return {**ends, "paid calls": len(model.paid())}


async def leader_killed(dsn: str, redis_url: str, folder: Path, *, calls: int) -> dict[str, Any]:
    """The same, and the process that asks is killed while it waits for the answer."""
    job = {"calls": calls // PROCESSES, "same": True, "reuse": "tenant"}
    async with standin(folder, latency_s=2.0) as model, fleet(dsn, redis_url, model, job, PLAIN) as processes:
        first, *others = processes.processes
        assert first.stdin is not None
        first.stdin.write(b"\n")
        await _until_flight(redis_url)
        processes.processes = others
        processes.begin()
        await asyncio.sleep(0.5)  # the others wait for it by now, or will
        first.kill()
        ends, _ = await processes.ended()
        return {**ends, "paid calls": len(model.paid())}


async def _until_flight(redis_url: str) -> None:
    async with asyncio.timeout(20), Redis.from_url(redis_url) as client:
        while not [key async for key in client.scan_iter("flight:*")]:
            await asyncio.sleep(0.02)


async def budget(dsn: str, redis_url: str, folder: Path, *, calls: int, usd: str, flushes: int) -> dict[str, Any]:
    """Calls of many sizes at once against a tenant's budget; Redis may lose everything half way."""
    job = {
        "calls": calls // PROCESSES,
        "question_chars": [100, 4000],
        "answer_chars": [20, 1100],
        "max_output_tokens": 300,
    }
    settings = {**PLAIN, "BUDGETS": {"tenant": {"usd": usd}}}
    async with standin(folder, latency_s=0.1) as model, fleet(dsn, redis_url, model, job, settings) as processes:
        processes.begin()
        ending = asyncio.create_task(processes.ended())
        if flushes:
            await _until_spent(model, float(usd) / 2, ending)
            async with Redis.from_url(redis_url) as client:
                await client.flushall()
        ends, _ = await ending
        connection = await asyncpg.connect(dsn)
        try:
            booked = await connection.fetchval("SELECT sum(cost_usd) FROM model_calls")
            told = await connection.fetch("SELECT value FROM outbox WHERE type = 'BudgetReached' ORDER BY id")
        finally:
            await connection.close()
        async with Redis.from_url(redis_url, decode_responses=True) as client:
            counted = [await client.hgetall(key) async for key in client.scan_iter("{budget}:tenant:*:north")]
        return {
            **ends,
            "counted": Decimal(counted[0]["usd"]) / 1_000_000_000,
            "spent": model.cost_usd(),
            "in the book": booked,
            "alerts": [json.loads(row["value"])["level"] for row in told],
        }


async def _until_spent(model: StandIn, usd: float, ending: asyncio.Task[Any]) -> None:
    while not ending.done() and (not model.ledger.exists() or float(model.cost_usd()) < usd):
        await asyncio.sleep(0.05)


async def limits(
    dsn: str, redis_url: str, folder: Path, *, requests: int, tokens: int, seconds: float, window_s: float = 60.0
) -> dict[str, Any]:
    """As many calls as three keys take, for so long. A window that is not a minute is set for the workers too."""
    keys = ["key-one1", "key-two2", "key-tri3"]
    calls = int(len(keys) * requests * (seconds / window_s + 2))
    job = {"calls": calls // PROCESSES, "question_chars": [100, 700], "answer_chars": [20, 200], "tries_again": True}
    job |= {"max_output_tokens": 100}
    settings = {
        **PLAIN,
        "ANTHROPIC_API_KEY": ",".join(keys),
        "LIMITS": {"anthropic": {"requests": requests, "tokens": tokens, "window_s": window_s}},
        "TIMEOUT_S": "300",
    }
    async with standin(folder, latency_s=0.2) as model, fleet(dsn, redis_url, model, job, settings) as processes:
        processes.begin()
        await asyncio.sleep(seconds)
        for process in processes.processes:
            process.kill()
        paid = model.paid()
    began = min(entry["arrived"] for entry in paid)
    over, most = 0, 0.0
    for key in keys:
        of_key = [entry for entry in paid if entry["key"] == key[-4:]]
        for entry in of_key:
            inside = [e for e in of_key if entry["arrived"] <= e["arrived"] < entry["arrived"] + window_s]
            used = (len(inside), _tokens(inside))
            over += used[0] > requests or used[1] > tokens
            most = max(most, used[0] / requests, used[1] / tokens)
    lasted = max(entry["arrived"] for entry in paid) - began
    share = max(
        len(paid) / (len(keys) * requests * lasted / window_s), _tokens(paid) / (len(keys) * tokens * lasted / window_s)
    )
    windows = lasted / window_s
    steady = _steady(paid, began, windows, window_s, len(keys), requests, tokens)
    return {"calls": len(paid), "over the limit": over, "fullest window": most, "used": steady, "of all": share}


def _steady(
    paid: Sequence[dict[str, Any]], began: float, windows: float, window_s: float, keys: int, requests: int, tokens: int
) -> float:
    """The share of the limit that was used, over whole windows."""
    end = began + int(windows) * window_s
    inside = [entry for entry in paid if entry["arrived"] < end]
    whole = keys * max(1, int(windows))
    return max(len(inside) / (whole * requests), _tokens(inside) / (whole * tokens))


def _tokens(entries: Sequence[dict[str, Any]]) -> int:
    return sum(entry["input_tokens"] + entry["output_tokens"] for entry in entries)


async def dead_model(dsn: str, redis_url: str, folder: Path, *, rate_s: float, dead_s: float) -> dict[str, Any]:
    """One of the tier's two models answers nothing but errors for so long, under steady load."""
    before_s, after_s = 2.0, 4.0
    calls = int(rate_s * (before_s + dead_s + after_s))
    job = {"calls": calls // PROCESSES, "rate_s": rate_s / PROCESSES, "tries_again": True}
    settings = {
        **PLAIN,
        "FAST": f"{MODEL_A},{MODEL_B}",
        "BREAKER": {"failures": 5, "window_s": 5, "open_s": 2, "longest_open_s": 2},
    }
    async with standin(folder, latency_s=0.05) as model, fleet(dsn, redis_url, model, job, settings) as processes:
        processes.begin()
        await asyncio.sleep(before_s)
        await model.fail({"kind": "server_error", "model": MODEL_A.partition(":")[2]})
        dead_at = time.time()
        await asyncio.sleep(dead_s)
        await model.fail()
        healed_at = time.time()
        ends, gap_s = await processes.ended()
        entries = model.entries()
    failed = [e["arrived"] for e in entries if e["status"] == 500]
    opened_at = _opened_at(failed)
    probes = [at for at in failed if at > opened_at]
    answered_by_a = [e["arrived"] for e in entries if e["paid"] and e["protocol"] == "anthropic"]
    return {
        "asked": calls // PROCESSES * PROCESSES,
        "answered": ends["answered"],
        "waited": sum(count for end, count in ends.items() if end.startswith("waited")),
        "failed before it opened": len(failed) - len(probes),
        "reached while open": len(probes),
        "half-open periods": int((healed_at - opened_at) / 2.0) + 1,
        "closest probes": min((b - a for a, b in itertools.pairwise(probes)), default=None),
        "longest gap": gap_s,
        "back after": min((at for at in answered_by_a if at > healed_at), default=float("inf")) - healed_at,
        "opened after": opened_at - dead_at,
    }


def _opened_at(failed: Sequence[float]) -> float:
    """When the breaker had opened: after the last failure before the first pause of a second."""
    for before, after in itertools.pairwise(failed):
        if after - before > 1.0:
            return before
    return failed[-1]
