"""`python -m tests.drill`: runs of the drill, and a table of what they found."""

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from tests.drill.bed import bed_of
from tests.drill.plan import plan_of, plan_with
from tests.drill.report import as_json, as_table, told
from tests.drill.rows import rows_of
from tests.drill.run import Result, drill
from tests.services.reaper import Reaper


def main() -> int:
    """Run it; 1 when a law was broken."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # what clients say of a broker that was killed on purpose
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    reaper = Reaper()
    try:
        results = asyncio.run(_runs(arguments, reaper))
    finally:
        reaper.close()
    print(as_table(results))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(as_json(results), indent=2) + "\n")
    return 1 if any(result.violations for result in results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=None, help="how many seeds in a row (default: 1, or no end)")
    parser.add_argument("--rows", default="", help="only these faults, by number: 1,2,…")
    parser.add_argument("--together", action="store_true", help="all of --rows in each run, in that order")
    parser.add_argument("--minutes", type=float, default=None, help="begin no run after so long")
    parser.add_argument("--json", default=None, metavar="FILE", help="write the figures there too")
    parser.add_argument("--ledgers", default=None, metavar="FOLDER", help="where failing runs leave theirs")
    parser.add_argument("--keep", action="store_true", help="keep the ledgers of sound runs too")
    return parser.parse_args()


async def _runs(arguments: argparse.Namespace, reaper: Reaper) -> list[Result]:
    rows = rows_of(arguments.rows)
    folder = Path(arguments.ledgers or tempfile.mkdtemp(prefix="switchyard-drill-"))
    results: list[Result] = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_where_everything_is)
    async with bed_of(reaper) as bed:
        for seed in _seeds(arguments):
            plan = plan_with(seed, rows) if arguments.together else plan_of(seed, rows)
            results.append(await drill(plan, bed, folder / plan.name, keep=arguments.keep))
            print(told(results[-1], arguments.rows, folder / plan.name, together=arguments.together), flush=True)
    return results


def _tell_where_everything_is() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(limit=6)


def _seeds(arguments: argparse.Namespace) -> Iterator[int]:
    runs = arguments.runs or (1 if arguments.minutes is None else sys.maxsize)
    until = time.monotonic() + 60 * (arguments.minutes or sys.maxsize)
    for seed in range(arguments.seed, arguments.seed + runs):
        if time.monotonic() < until:
            yield seed


if __name__ == "__main__":
    sys.exit(main())
