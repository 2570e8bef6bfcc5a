"""Four processes with a gateway each, over one Redis, one PostgreSQL and a stand-in whose ledger tells what is paid."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2

from llm.prices import Prices
from llm.provider import Completion

MODEL_A, MODEL_B = "anthropic:claude-haiku-4-5", "openai:gpt-5.4-mini"
PROCESSES = 4


@dataclass(frozen=True, slots=True)
class StandIn:
    """The stand-in's process."""

    url: str
    ledger: Path

    def entries(self) -> list[dict[str, Any]]:
        """Every call that came in, oldest first."""
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def paid(self) -> list[dict[str, Any]]:
        """Those that were paid for."""
        return [entry for entry in self.entries() if entry["paid"]]

    async def fail(self, *rules: Mapping[str, Any]) -> None:
        """Put these faults in force; none heals."""
        async with httpx2.AsyncClient() as client:
            (await client.post(f"{self.url}/faults", json=list(rules))).raise_for_status()

    def cost_usd(self) -> Decimal:
        """What the ledger comes to, at the list's prices."""
        prices = Prices()
        return sum((cost_of(entry, prices) for entry in self.paid()), Decimal(0))


def cost_of(entry: Mapping[str, Any], prices: Prices) -> Decimal:
    """What an entry of the ledger cost."""
    used = Completion("", "", entry["model"], entry["input_tokens"], entry["output_tokens"])
    return prices.cost_usd(entry["protocol"], entry["model"], used)


@asynccontextmanager
async def standin(folder: Path, *, latency_s: float = 0.0) -> AsyncIterator[StandIn]:
    """A stand-in of its own."""
    ledger = folder / "ledger.jsonl"
    arguments = ["--ledger", str(ledger), "--latency-s", str(latency_s)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.fleet.standin", *arguments, stdout=PIPE)
    try:
        assert process.stdout is not None
        yield StandIn((await process.stdout.readline()).decode().strip(), ledger)
    finally:
        process.terminate()
        await process.wait()


class Fleet:
    """The processes, from the moment all are ready."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self.processes = processes

    def begin(self) -> None:
        """Let all begin."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")

    async def ended(self) -> tuple[Counter[str], float]:
        """How many calls of all processes ended how, and the longest time one of them had no answer."""
        ends: Counter[str] = Counter()
        gap_s = 0.0
        for process in self.processes:
            printed, complaints = await process.communicate()
            if process.returncode == -9:  # killed on purpose
                continue
            if process.returncode:
                raise AssertionError(complaints.decode()[-4000:])
            told = json.loads(printed.splitlines()[-1])
            ends.update(told["ends"])
            gap_s = max(gap_s, told["longest_gap_s"])
        return ends, gap_s


@asynccontextmanager
async def fleet(
    dsn: str, redis_url: str, standin_: StandIn, job: Mapping[str, Any], llm: Mapping[str, Any]
) -> AsyncIterator[Fleet]:
    """Four processes, ready; `llm` are settings by their names."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")},
        "SWITCHYARD_POSTGRES__DSN": dsn,
        "SWITCHYARD_POSTGRES__MAX_CONNECTIONS": "8",
        "SWITCHYARD_REDIS__URL": redis_url,
        "SWITCHYARD_LLM__ANTHROPIC_BASE_URL": standin_.url,
        "SWITCHYARD_LLM__OPENAI_BASE_URL": f"{standin_.url}/v1",
        "SWITCHYARD_LLM__ANTHROPIC_API_KEY": "key-a",
        "SWITCHYARD_LLM__OPENAI_API_KEY": "key-b",
        **{
            f"SWITCHYARD_LLM__{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in llm.items()
        },
    }
    processes = []
    try:
        for number in range(PROCESSES):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.fleet.worker"),
                env=environment,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=2**20,
            )
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps({"seed": number, **job}).encode() + b"\n")
        for process in processes:
            assert process.stdout is not None
            if not await process.stdout.readline():
                raise AssertionError((await process.communicate())[1].decode()[-4000:])
        yield Fleet(processes)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
