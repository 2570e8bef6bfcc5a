"""`switchyard doctor`: what is wrong, and what mends it."""

from __future__ import annotations

import typer

from ops.printing import Json, print_json
from ops.running import run

doctor_app = typer.Typer()

_MARKS = ("ok", "warning", "FAULT")


@doctor_app.command()
def doctor(
    as_json: Json = False,
) -> None:
    """Look at Kafka, PostgreSQL, Redis, models, topics and agents; exit 0: all is well, 1: warnings, 3: faults."""
    from ops.service.doctor import examine
    from ops.service.findings import Severity
    from ops.settings import read_settings

    findings = run(examine(read_settings()))
    if as_json:
        rows = [
            {"severity": one.severity.name.lower(), "about": one.about, "says": one.says, "mend": one.mend or None}
            for one in findings
        ]
        print_json(rows)
    else:
        for one in findings:
            mend = f"\n         {one.mend}" if one.mend else ""
            print(f"{_MARKS[one.severity]:<9}{one.about}: {one.says}{mend}", flush=True)
    worst = max(one.severity for one in findings)
    raise typer.Exit({Severity.FINE: 0, Severity.WARNING: 1, Severity.FAULT: 3}[worst])
