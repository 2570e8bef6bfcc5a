"""`python -m evals FILE`: publish support cases to a running system and compare their outcomes with gold.

Reaches Kafka as `switchyard` does, by SWITCHYARD_KAFKA__…; prints a table, or one JSON object with --json.
Exit 1 when a case has not exactly one outcome, or a leak.
"""

import argparse
import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evals.drive import Run, drive
from evals.support_cases import KindScore, judge, read_cases, score
from ops.settings import read_settings
from ops.wiring import kafka_connection


def main() -> int:
    """Run the cases and report."""
    options = argparse.ArgumentParser(prog="python -m evals", description=__doc__)
    options.add_argument("file", type=Path, help="cases as JSONL, in the support_cases format")
    options.add_argument("--suffix", default="", help="appended to ticket ids, so that a second run is of new tickets")
    options.add_argument("--timeout-s", type=float, default=300)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    cases = read_cases(given.file, given.suffix)
    run = asyncio.run(drive(kafka_connection(read_settings().kafka), cases, timeout_s=given.timeout_s))
    verdicts = [judge(case, run.outcomes.get(case.id, [])) for case in cases]
    kinds = score(verdicts)
    report = as_report(run, kinds)
    if given.json:
        print(json.dumps(report))
    else:
        show(report, kinds)
        for verdict in [v for v in verdicts if v.problems][:20]:
            print(f"{verdict.case.id} ({verdict.case.kind}): {'; '.join(verdict.problems)}")
    return 0 if report["exactly_one_outcome"] == len(cases) and not report["leaks"] else 1


def as_report(run: Run, kinds: list[KindScore]) -> dict[str, Any]:
    """The figures of a run: counts, seconds from publish to outcome, tickets per second."""
    waits = sorted(run.seconds.values())
    return {
        "cases": sum(k.cases for k in kinds),
        "exactly_one_outcome": sum(len(found) == 1 for found in run.outcomes.values()),
        "right": sum(k.right for k in kinds),
        "leaks": sum(k.leaks for k in kinds),
        "tickets_per_s": round(len(waits) / run.elapsed_s, 1),
        "p50_s": round(statistics.median(waits), 3) if waits else None,
        "p95_s": round(waits[int(len(waits) * 0.95)], 3) if waits else None,
        "cost_usd": round(sum(o["cost_usd"] for found in run.outcomes.values() for o in found), 6),
        "per_kind": {k.kind: {"cases": k.cases, "right": k.right, "leaks": k.leaks} for k in kinds},
    }


def show(report: dict[str, Any], kinds: list[KindScore]) -> None:
    """Print the report as a table."""
    table = Table("kind", "cases", "right", "leaks")
    for kind in kinds:
        table.add_row(kind.kind, str(kind.cases), f"{kind.right / kind.cases:.1%}", str(kind.leaks))
    Console().print(table)
    print({k: v for k, v in report.items() if k != "per_kind"})


if __name__ == "__main__":
    raise SystemExit(main())
