"""`python -m tests.fleet.worker`: one process of the fleet. It makes the calls that a JSON line on standard input asks
for, through a gateway of the settings in its environment, and says on standard output what became of them."""

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from typing import Any

from pydantic import BaseModel

from contracts.errors import Outage, SupportError, Transient
from contracts.models import CallContext, ModelRequest, Reuse
from contracts.values import Tier
from llm.gateway import Gateway
from ops.models import chat_model
from ops.running import run
from ops.settings import read_settings
from state.pool import open_pool

AGENT = "triage"


class Echo(BaseModel):
    """What the fleet asks for."""

    text: str


async def work(job: dict[str, Any]) -> dict[str, Any]:
    """Make the calls; returns how many ended how, and the longest time between two answers."""
    settings = read_settings()
    dsn = settings.postgres.dsn.get_secret_value()
    async with (
        open_pool(dsn, max_size=settings.postgres.max_connections) as pool,
        chat_model([Tier.FAST], settings, pool) as gateway,
    ):
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()  # all begin together
        ends: Counter[str] = Counter()
        answered: list[float] = []
        chance = random.Random(job["seed"])
        calls = [_call(gateway, job, number, chance, ends, answered) for number in range(job["calls"])]
        if rate := job.get("rate_s"):
            await _paced(calls, rate)
        else:
            await asyncio.gather(*calls)
    gaps = [after - before for before, after in itertools.pairwise(answered)]
    return {"ends": ends, "longest_gap_s": max(gaps, default=0.0)}


async def _paced(calls: list[Any], rate_s: float) -> None:
    """Begin so many a second, whatever becomes of them."""
    began, tasks = time.monotonic(), []
    for number, call in enumerate(calls):
        await asyncio.sleep(max(0.0, began + number / rate_s - time.monotonic()))
        tasks.append(asyncio.create_task(call))
    await asyncio.gather(*tasks)


async def _call(
    gateway: Gateway, job: dict[str, Any], number: int, chance: random.Random, ends: Counter[str], answered: list[float]
) -> None:
    name = "same" if job.get("same") else f"{job['seed']}-{number}"
    answer_chars = chance.randint(*job.get("answer_chars", [20, 20]))
    words = "w" * chance.randint(*job.get("question_chars", [50, 50]))
    request = ModelRequest(
        Tier.FAST,
        "Say so many characters.",
        f"{20 if job.get('same') else answer_chars} {'' if job.get('same') else words} [ticket:{name}]",
        Echo,
        max_output_tokens=job.get("max_output_tokens", 300),
        reuse=Reuse(job.get("reuse", "never")),
    )
    context = CallContext(f"ticket-{name}", "north", f"event-{job['seed']}-{number}", AGENT, "ask")
    while True:
        try:
            await gateway.ask(request, context)
            answered.append(time.monotonic())
            ends["answered"] += 1
        except Outage as error:
            ends[f"waited: {type(error).__name__}"] += 1
            if job.get("waits", True):
                await asyncio.sleep(0.2)  # as the engine does, without spending a try
                continue
        except SupportError as error:
            ends[type(error).__name__] += 1
            if job.get("tries_again") and isinstance(error, Transient):
                await asyncio.sleep(0.2)
                continue
        return


if __name__ == "__main__":
    print(json.dumps(run(work(json.loads(sys.stdin.readline())))), flush=True)
