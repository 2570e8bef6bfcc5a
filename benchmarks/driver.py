"""Runs arms as processes, slice by slice, interleaved."""

import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.job import Findings, Job
from benchmarks.machine import Steal, calibrate
from benchmarks.stats import abba

MOST_STEAL = 0.05
_END_WITHIN_S = 30.0

T = TypeVar("T")


class ArmFailed(Exception):
    """An arm ended without findings; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """What one slice of one arm came to, and how the machine was meanwhile."""

    found: T
    calibration_s: float
    steal: float


@dataclass(slots=True)
class Process:
    """An arm that runs."""

    child: asyncio.subprocess.Process

    async def findings(self) -> Findings:
        """Wait for its end. Raises ArmFailed."""
        printed, complaints = await self.child.communicate()
        lines = printed.decode().splitlines()
        if self.child.returncode or not lines:
            raise ArmFailed(f"exit code {self.child.returncode}:\n{complaints.decode(errors='replace')[-4000:]}")
        given = json.loads(lines[-1])
        return Findings(**{**given, "rss_bytes": tuple((at, rss) for at, rss in given["rss_bytes"])})

    async def stop(self) -> Findings:
        """Ask it to end, and wait. Raises ArmFailed."""
        self.child.terminate()
        async with asyncio.timeout(_END_WITHIN_S):
            return await self.findings()

    async def kill(self) -> None:
        """End it as a power failure would."""
        self.child.kill()
        await self.child.communicate()


async def start(job: Job) -> Process:
    """Start an arm's process and hand it its job."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.arms"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
    await child.stdin.drain()
    return Process(child)


async def run(job: Job, *, limit_s: float | None = None) -> Findings:
    """Run an arm from its start to its end. Raises ArmFailed: also when it takes too long."""
    process = await start(job)
    ending = asyncio.create_task(process.findings())
    longest_s = max(job.wait_s, float(job.options.get("slow_s", 0)))  # some arms end no sooner than their handlers
    limit_s = limit_s or job.warmup_s + job.window_s + longest_s + _END_WITHIN_S
    try:
        await asyncio.wait({ending}, timeout=limit_s)
        if not ending.done():
            process.child.send_signal(signal.SIGABRT)  # which leaves a traceback in its log
        return await ending
    except ArmFailed as error:
        raise ArmFailed(f"{job.arm}: {error}") from None
    finally:
        if process.child.returncode is None:
            process.child.kill()


async def interleaved(
    arms: Mapping[str, Callable[[], Awaitable[T]]], slices: int, told: Callable[[str], None]
) -> dict[str, list[Slice[T]]]:
    """Run every arm `slices` times, in ABBA order; a round that lost over 5 % to neighbours is left out if any stays.

    The slices of the same index belong to the same round.
    """
    rounds: list[dict[str, Slice[T]]] = [{} for _ in range(slices)]
    for number, arm in abba(list(arms), slices):
        speed, steal = calibrate(), Steal()
        found = await arms[arm]()
        rounds[number][arm] = Slice(found, speed, steal.share())
        told(f"round {number + 1}/{slices} {arm}")
    calm = [kept for kept in rounds if all(one.steal <= MOST_STEAL for one in kept.values())]
    return {arm: [kept[arm] for kept in calm or rounds] for arm in arms}
