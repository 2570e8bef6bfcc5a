"""`python -m benchmarks NAME`: run one benchmark, or `all`, against real services, and print what it came to.

Reaches Kafka and PostgreSQL as `switchyard` does, by SWITCHYARD_KAFKA__… and SWITCHYARD_POSTGRES__DSN, whose role must
be allowed to create databases. Exit 1 when a bar is missed.
"""

import argparse
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.burst import burst
from benchmarks.cluster import open_cluster
from benchmarks.database import Databases, open_databases
from benchmarks.fairness import b12
from benchmarks.gateway import gateway
from benchmarks.head_of_line import b8
from benchmarks.hop import b6
from benchmarks.killing import b10
from benchmarks.looking import lag
from benchmarks.memory import b13
from benchmarks.no_op import b3
from benchmarks.rebalancing import b9
from benchmarks.result import Result
from benchmarks.retrying import b11
from benchmarks.soak import soak
from benchmarks.starting import b14
from benchmarks.tracking import b7
from benchmarks.versions import installed
from benchmarks.waiting import b1, b2
from benchmarks.whole_step import b4
from bus.admin import apply_topics
from bus.connection import KafkaConnection
from ops.running import run
from ops.settings import read_settings
from ops.telemetry import log_to_stderr

Run = Callable[[Bench, Databases], Awaitable[Result]]


def _storeless(run: Callable[[Bench], Awaitable[Result]]) -> Run:
    return lambda bench, _databases: run(bench)


BENCHMARKS: dict[str, Run] = {
    "B1": b1,
    "B2": _storeless(b2),
    "B3": _storeless(b3),
    "B4": b4,
    "B6": b6,
    "B7": _storeless(b7),
    "B8": b8,
    "B9": b9,
    "B10": b10,
    "B11": b11,
    "B12": b12,
    "B13": b13,
    "B14": b14,
    "soak": soak,
    "gateway": gateway,
    "burst": burst,
    "lag": lag,
}


def main() -> int:
    """Run what was asked for and report."""
    log_to_stderr("benchmarks", logging.ERROR)
    settings = read_settings()
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    options.add_argument("name", choices=[*BENCHMARKS, "all"], type=_name)
    options.add_argument("--json", type=Path, help="write a JSON list, one object a benchmark, to this file")
    options.add_argument("--quick", action="store_true", help="few and short slices: to see that it works")
    options.add_argument("--slices", type=int, help="how often each arm runs: 5 times, 2 in a quick run")
    options.add_argument("--tickets", type=int, help="burst alone: so many tickets, instead of 20,000")
    options.add_argument("--arms", default="", help="run these arms alone, separated by commas")
    options.add_argument("--kafka", default=settings.kafka.bootstrap_servers)
    options.add_argument("--postgres", default=settings.postgres.dsn.get_secret_value())
    given = options.parse_args()
    names = list(BENCHMARKS) if given.name == "all" else [given.name]
    results = run(_run(names, given))
    if given.json:
        versions = installed()
        given.json.write_text(json.dumps([result.as_json(versions) for result in results], indent=1))
    return 0 if all(bar.met for result in results for bar in result.bars) else 1


def _name(given: str) -> str:
    return given.upper() if given[1:].isdigit() else given


async def _run(names: list[str], given: argparse.Namespace) -> list[Result]:
    results = []
    await apply_topics(KafkaConnection(given.kafka))
    async with open_cluster(given.kafka) as cluster, open_databases(given.postgres) as databases:
        only = frozenset(given.arms.split(",")) if given.arms else frozenset()
        slices = given.slices or (2 if given.quick else 5)
        bench = Bench(cluster, given.quick, slices, only, lambda line: print(line, file=sys.stderr), given.tickets)
        for name in names:
            result = await BENCHMARKS[name](bench, databases)
            result.show(Console(width=None if sys.stdout.isatty() else 180))
            results.append(result)
    return results


if __name__ == "__main__":
    raise SystemExit(main())
