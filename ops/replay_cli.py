"""`switchyard replay`: recorded tickets decided again in a shadow."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.printing import Json, open_console, print_json
from ops.running import FAILED, run

if TYPE_CHECKING:
    from ops.replay.report import Report
    from ops.replay.service import Candidate

PromptFile = Annotated[Path | None, typer.Option("--prompt", help="In place of the prompt of the agent it names.")]
Model = Annotated[str | None, typer.Option("--model", help="provider:model for every paid tier; needs --live-model.")]
Version = Annotated[str | None, typer.Option("--agent-version", help="Refuse to run unless the code here has it.")]
Live = Annotated[bool, typer.Option("--live-model", help="Ask a model where nothing is recorded.")]
Budget = Annotated[float, typer.Option("--live-budget", min=0, help="USD that --live-model may spend, in all.")]
Gold = Annotated[Path | None, typer.Option("--gold", help="JSON lines of ticket_id and what is right.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write the report to this file too.")]
FailOnDiff = Annotated[bool, typer.Option("--fail-on-diff", help="Exit 1 when a ticket did not come out the same.")]
DEFAULT_LIVE_USD = 1.0


def replay(
    topic: Annotated[str, typer.Argument(help="One that an agent reads, e.g. support.tickets.v1.")],
    start: Annotated[str, typer.Option("--from", help="earliest, a time, -2h, an offset, or 0:17,3:4 by partition.")],
    end: Annotated[str, typer.Option("--to", help="The same, or latest; the record there is left out.")] = "latest",
    ticket: Annotated[str | None, typer.Option(help="This ticket alone.")] = None,
    tenant: Annotated[str | None, typer.Option(help="This tenant's tickets alone.")] = None,
    agent_version: Version = None,
    prompt: PromptFile = None,
    model: Model = None,
    live_model: Live = False,
    live_budget: Budget = DEFAULT_LIVE_USD,
    gold: Gold = None,
    html: Html = None,
    fail_on_diff: FailOnDiff = False,
    as_json: Json = False,
) -> None:
    """Decide a window of TOPIC again, and show where the decisions differ. Nothing live is read but what was recorded.

    Exit 1: an answer that is needed was never recorded, or a ticket could not be run to its end.
    """
    from ops.replay import service
    from ops.settings import read_settings

    window = service.Window(topic, service.bound(start, "--from"), service.bound(end, "--to"), ticket, tenant)
    candidate = _candidate(agent_version, prompt, model, live_model, live_budget)
    show(run(service.replay(window, candidate, gold, read_settings())), html, fail_on_diff, as_json)


def replay_from(ticket_id: str, step: str, as_json: bool) -> None:
    """What `switchyard ticket ID --replay-from STEP` does: that ticket again from that step on, by the code at hand."""
    from ops.replay import service
    from ops.settings import read_settings

    show(run(service.replay_ticket(ticket_id, step, service.Candidate(), read_settings())), None, False, as_json)


def show(report: Report, html: Path | None, fail_on_diff: bool, as_json: bool) -> None:
    """Print a report, write its page, and exit as it says."""
    from ops.replay.page import as_html
    from ops.replay.report import as_table

    if html is not None:
        html.write_text(as_html(report), encoding="utf-8")
    if as_json:
        print_json(report.as_document())
    else:
        open_console().print(as_table(report))
    if not report.is_complete or (fail_on_diff and report.has_differences):
        raise typer.Exit(FAILED)


def _candidate(
    agent_version: str | None, prompt: Path | None, model: str | None, live_model: bool, live_budget: float
) -> Candidate:
    from ops.replay.service import Candidate

    return Candidate(prompt, model, agent_version, Decimal(str(live_budget)) if live_model else None)
