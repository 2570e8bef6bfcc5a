"""`python -m benchmarks.arms`: reads one job as JSON, runs that arm, prints its findings as JSON."""

import asyncio
import contextlib
import dataclasses
import faulthandler
import importlib
import json
import logging
import signal
import sys

from benchmarks.job import Findings, Job
from benchmarks.ledger import Ledger


def main() -> None:
    """Run the job that standard input holds."""
    faulthandler.enable()
    given = json.loads(sys.stdin.readline())
    job = Job(**{**given, "ends": tuple(given.get("ends", ()))})
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    arm = importlib.import_module(f"benchmarks.arms.{job.arm}")
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()  # for the loops that a library starts in threads of its own too
    print(json.dumps(dataclasses.asdict(asyncio.run(_run(arm.run, job)))), flush=True)


async def _run(run, job: Job) -> Findings:  # type: ignore[no-untyped-def]
    ledger = Ledger(job)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ledger.over.set)
    if job.bootstrap:
        from benchmarks.commits import watch_commits

        watch_commits(ledger, job.topic)
    measuring = asyncio.create_task(ledger.measure())
    await run(job, ledger)
    measuring.cancel()
    return ledger.findings()


if __name__ == "__main__":
    main()
