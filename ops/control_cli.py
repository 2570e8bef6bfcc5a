"""`switchyard pause|resume|drain|concurrency`: orders to running workers, each answered by name."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from ops.printing import Json, print_found
from ops.running import run

if TYPE_CHECKING:
    from contracts.control import ControlOrder
    from ops.service.control import Answer, Given

control_app = typer.Typer()

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="triage, lookup, reasoning, effects or review.")]
OneWorker = Annotated[str | None, typer.Option("--worker", help="This worker alone; all of the agent if left out.")]
By = Annotated[str, typer.Option("--by", help="Who orders it; the name you are logged in with if left out.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the order.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say who would be asked, and ask nobody.")]


@control_app.command()
def pause(
    agent: Agent,
    worker: OneWorker = None,
    reason: Reason = "",
    by: By = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have AGENT's workers start nothing more; they finish what is in flight and keep their partitions."""
    from contracts.events import Pause

    _give(Pause(**_about(agent, worker, by, reason)), dry_run, as_json)


@control_app.command()
def resume(
    agent: Agent,
    worker: OneWorker = None,
    reason: Reason = "",
    by: By = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have AGENT's workers take records again, after a pause or a drain."""
    from contracts.events import Resume

    _give(Resume(**_about(agent, worker, by, reason)), dry_run, as_json)


@control_app.command()
def drain(
    agent: Agent,
    worker: OneWorker = None,
    reason: Reason = "",
    by: By = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have AGENT's workers finish what is in flight and leave their group, until they are resumed."""
    from contracts.events import Drain

    _give(Drain(**_about(agent, worker, by, reason)), dry_run, as_json)


@control_app.command()
def concurrency(
    agent: Agent,
    lanes: Annotated[int, typer.Argument(metavar="N", min=1, max=5000, help="Tickets in flight in each process.")],
    worker: OneWorker = None,
    reason: Reason = "",
    by: By = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let each of AGENT's workers have N tickets in flight, from now on and after a restart."""
    from contracts.events import SetConcurrency

    _give(SetConcurrency(lanes=lanes, **_about(agent, worker, by, reason)), dry_run, as_json)


def _about(agent: str, worker: str | None, by: str, reason: str) -> dict[str, str]:
    from ops.service.control import new_command_id

    named = {"worker": worker} if worker else {}
    return {"command_id": new_command_id(), "group": agent, "by": by or getpass.getuser(), "reason": reason, **named}


def _give(order: ControlOrder, dry_run: bool, as_json: bool) -> None:
    from ops.service.control import give
    from ops.settings import read_settings

    given = run(give(order, read_settings(), dry_run=dry_run))
    print_found(given.as_document(), as_json, _as_text(given))
    raise typer.Exit(0 if given.is_done else 1)


def _as_text(given: Given) -> str:
    order = given.order
    head = f"{order.type_name()} for {order.group}"
    if not given.answers:
        now = "no worker of it is up"
        return f"{head}: {now}" if given.dry_run else f"{head}: {now}; those that start will heed it"
    return "\n".join([head + (" would go to" if given.dry_run else ""), *map(_line, given.answers)])


def _line(answer: Answer) -> str:
    marks = {True: "done", False: "not done", None: "-"}
    return f"  {marks[answer.done]:<9} {answer.worker}  {answer.detail}"
