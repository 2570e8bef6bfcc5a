"""`switchyard scale|supervise`: how many workers each agent has, and the process that keeps them up."""

from __future__ import annotations

import getpass
import logging
from pathlib import Path
from typing import Annotated

import typer

from ops.printing import Json, print_found
from ops.running import run, until_signalled

scaling_app = typer.Typer()


@scaling_app.command()
def scale(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="triage, lookup, reasoning, effects or review.")],
    workers: Annotated[int, typer.Argument(metavar="N", min=0, max=64, help="So many processes.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who decides; the name you are logged in with if left out.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Have N workers of AGENT: the supervisor starts those that are missing and drains those above."""
    from ops.service import scaling
    from ops.settings import read_settings

    who = by or getpass.getuser()
    scaled = run(scaling.scale(agent, workers, read_settings(), by=who, reason=reason, dry_run=dry_run))
    before = "as many as the supervisor starts at first" if scaled.before is None else str(scaled.before)
    verb = "would have" if dry_run else "is to have"
    print_found(scaled.as_document(), as_json, f"{agent} {verb} {workers} workers; it was to have {before}")


@scaling_app.command()
def supervise(
    folder: Annotated[Path, typer.Option("--dir", help="Where the workers' locks and logs are.")] = Path(
        ".switchyard/workers"
    ),
    workers: Annotated[int, typer.Option(min=0, max=64, help="Of each agent, until `scale` says otherwise.")] = 1,
    as_json: Json = False,
) -> None:
    """Keep workers of every agent up until SIGINT or SIGTERM, which drains them; killed, it leaves them at work."""
    from ops.service import scaling
    from ops.settings import read_settings
    from ops.telemetry import log_to_stderr

    def looked() -> None:
        print_found({"ready": "supervisor"}, as_json, "the supervisor is at work")

    log_to_stderr("supervisor", logging.INFO)
    settings = read_settings()
    run(until_signalled(lambda stopping: scaling.supervise(folder.resolve(), workers, settings, stopping, looked)))
