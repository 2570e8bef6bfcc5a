"""`switchyard autoscale`: the process that decides how many workers each agent has, and what it found."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.printing import Json, print_found
from ops.running import run, until_signalled

if TYPE_CHECKING:
    from contracts.control import Scale

autoscale_app = typer.Typer()


@autoscale_app.command()
def autoscale(
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="All agents if left out.")] = None,
    run_: Annotated[bool, typer.Option("--run", help="Decide again and again until SIGINT or SIGTERM.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --run: log decisions, and change nothing.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show each change with what it was decided from.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="With --explain: so many changes.")] = 20,
    as_json: Json = False,
) -> None:
    """Show how many workers are right for each agent and why; with --run, be the one who decides that."""
    if run_:
        _run(agent, dry_run, as_json)
    elif explain:
        _explain(agent, limit, as_json)
    elif agent is None:
        _show_all(as_json)
    else:
        _show(agent, as_json)


def _run(agent: str | None, dry_run: bool, as_json: bool) -> None:
    from ops.service import autoscaling
    from ops.settings import read_settings
    from ops.telemetry import log_to_stderr

    def ready() -> None:
        print_found({"ready": "autoscaler"}, as_json, "the autoscaler is at work" + ", and keeps nothing" * dry_run)

    log_to_stderr("autoscaler", logging.INFO)
    settings = read_settings()
    run(
        until_signalled(
            lambda stopping: autoscaling.run_autoscaler(agent, settings, stopping, ready, dry_run=dry_run),
        )
    )


def _explain(agent: str | None, limit: int, as_json: bool) -> None:
    from ops.service import scaling
    from ops.settings import read_settings

    decided = run(scaling.decisions(agent, read_settings(), limit=limit))
    print_found([asdict(scale) for scale in decided], as_json, "\n".join(_lines(decided, explain=True)))


def _show_all(as_json: bool) -> None:
    from ops.service import autoscaling
    from ops.settings import read_settings

    found = run(autoscaling.advices(read_settings()))
    text = "\n".join(_lines(found, explain=False)) or "nobody looked yet: `switchyard autoscale --run` does"
    print_found([asdict(scale) for scale in found], as_json, text)


def _show(agent: str, as_json: bool) -> None:
    from ops.service import autoscaling
    from ops.settings import read_settings

    found = run(autoscaling.advice(agent, read_settings()))
    lines = [f"{found.agent}: {found.workers} workers: {found.reason}", *_inputs(found.inputs)]
    print_found(found.as_document(), as_json, "\n".join(lines))


def _lines(scales: Sequence[Scale], *, explain: bool) -> Iterator[str]:
    for scale in scales:
        at = scale.at.isoformat(timespec="seconds") if scale.at else "-"
        yield f"{at}  {scale.agent:<10} {scale.workers:>3}  {scale.by:<12} {scale.reason}"
        if explain:
            yield from _inputs(scale.inputs)


def _inputs(inputs: Mapping[str, Any]) -> Iterator[str]:
    return (f"    {name:<16} {value}" for name, value in inputs.items())
