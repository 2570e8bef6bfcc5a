"""`switchyard dlt`: what the agents gave up on, shown, redriven and discarded."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.printing import Json, print_found
from ops.running import run, until_signalled

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from contracts.letters import LetterFilter
    from ops.service.letters import Asked, LetterDesk, Told

dlt_app = typer.Typer(no_args_is_help=True, help="Dead letters: what the agents gave up on.")

By = Annotated[str, typer.Option("--by", help="Who asks for it; the name you are logged in with if left out.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `jobs` shows it.")]
Error = Annotated[str | None, typer.Option(help="Failed with this class of error alone: Undecodable, ContractBroken.")]
Print = Annotated[str | None, typer.Option("--fingerprint", help="Failed alike, as `list` counts them.")]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant alone.")]
Ticket = Annotated[str | None, typer.Option(help="About this ticket alone.")]
Letters = Annotated[list[str] | None, typer.Option("--letter", help="This letter alone; may be given again.")]
Since = Annotated[str | None, typer.Option(help="Failed since: 2026-11-21T14:05:00Z, or 15m, 2h, 3d ago.")]
Until = Annotated[str | None, typer.Option(help="Failed before.")]
Rate = Annotated[float, typer.Option(min=0.01, max=10_000, help="At most so many letters a second.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


@dlt_app.command("list")
def list_(
    agent: Annotated[str | None, typer.Argument(help="Of this agent alone.")] = None,
    error: Error = None,
    fingerprint: Print = None,
    tenant: Tenant = None,
    ticket: Ticket = None,
    letter: Letters = None,
    since: Since = None,
    until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that wait for no person (any more).")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Show so many one by one; all are counted.")] = 100,
    as_json: Json = False,
) -> None:
    """Count the dead letters that wait for a person by fingerprint, and show them, longest waiting first."""
    from ops.letter_text import as_lines, listed
    from ops.service.letters import WAIT_FOR_A_PERSON, letter_desk
    from ops.settings import read_settings

    wanted = _filter(agent, letter, error, fingerprint, tenant, ticket, since, until)

    async def find() -> dict[str, Any]:
        async with letter_desk(read_settings()) as desk:
            found = await desk.found(wanted)
        return listed([one for one in found if every or one.standing in WAIT_FOR_A_PERSON], limit)

    document = run(find())
    print_found(document, as_json, "" if as_json else as_lines(document))


@dlt_app.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="A letter's id, as `list` shows it.")],
    raw: Annotated[bool, typer.Option("--raw", help="Byte for byte, nothing masked.")] = False,
    as_json: Json = False,
) -> None:
    """Show a dead letter with its record, in which secrets, cards, addresses and numbers are masked."""
    from ops.letter_text import as_text, shown
    from ops.service.letters import letter_desk
    from ops.settings import read_settings

    async def find() -> dict[str, Any]:
        async with letter_desk(read_settings()) as desk:
            return shown(*await desk.find(letter), raw=raw)

    document = run(find())
    print_found(document, as_json, "" if as_json else as_text(document))


@dlt_app.command()
def redrive(
    agent: Annotated[str, typer.Argument(help="Whose dead letters.")],
    error: Error = None,
    fingerprint: Print = None,
    tenant: Tenant = None,
    ticket: Ticket = None,
    letter: Letters = None,
    since: Since = None,
    until: Until = None,
    rate: Rate = 100.0,
    force: Annotated[bool, typer.Option("--force", help="Also what was redriven three times or more.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the book.")] = "",
    by: By = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have AGENT try its dead letters again: a blocked ticket goes on from its letter, and what waits follows."""
    from contracts.letters import Act
    from ops.service.letters import Asked

    wanted = _filter(agent, letter, error, fingerprint, tenant, ticket, since, until)
    _do(wanted, Asked(Act.REDRIVE, by or getpass.getuser(), reason, rate, force), dry_run, as_json)


@dlt_app.command()
def discard(
    agent: Annotated[str, typer.Argument(help="Whose dead letters.")],
    reason: Annotated[str, typer.Option(help="Why, for the book.")],
    error: Error = None,
    fingerprint: Print = None,
    tenant: Tenant = None,
    ticket: Ticket = None,
    letter: Letters = None,
    since: Since = None,
    until: Until = None,
    rate: Rate = 100.0,
    by: By = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give dead letters of AGENT up for good: what waits behind them follows."""
    from contracts.letters import Act
    from ops.service.letters import Asked

    if not reason.strip():
        raise typer.BadParameter("say why they are given up", param_hint="--reason")
    wanted = _filter(agent, letter, error, fingerprint, tenant, ticket, since, until)
    _do(wanted, Asked(Act.DISCARD, by or getpass.getuser(), reason, rate), dry_run, as_json)


@dlt_app.command()
def jobs(as_json: Json = False) -> None:
    """Show who redrove and discarded what, the latest first; at most 100."""
    from ops.letter_text import job_line, job_told
    from ops.service.letters import letter_desk
    from ops.settings import read_settings

    async def find() -> list[dict[str, Any]]:
        async with letter_desk(read_settings()) as desk:
            return [job_told(job) for job in await desk.jobs()]

    found = run(find())
    print_found(found, as_json, "\n".join(map(job_line, found)) or "no jobs")


@dlt_app.command()
def job(job_id: JobId, as_json: Json = False) -> None:
    """Show a job, and what became of each of its letters."""
    _tell(lambda desk, stopping: desk.told(job_id), as_json)


@dlt_app.command()
def resume(job_id: JobId, as_json: Json = False) -> None:
    """Go on with a job that was interrupted."""
    _tell(lambda desk, stopping: desk.work(job_id, stopping), as_json)


@dlt_app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Have a job act on no more letters, wherever it runs; what it did stays done."""
    _tell(lambda desk, stopping: desk.cancel(job_id), as_json)


def _do(wanted: LetterFilter, asked: Asked, dry_run: bool, as_json: bool) -> None:
    """Plan a job, and do it unless it is only to be told."""
    from ops.letter_text import job_with_letters, planned
    from ops.service.letters import letter_desk
    from ops.settings import read_settings

    settings = read_settings()

    async def act(stopping: asyncio.Event) -> dict[str, Any]:
        async with letter_desk(settings) as desk:
            job, letters = await desk.plan(wanted, asked)
            if dry_run or not letters:
                return planned(job, letters)
            await desk.begin(job, letters)
            typer.echo(f"job {job.job_id}: {len(letters)} letters", err=True)
            return job_with_letters(await desk.work(job.job_id, stopping))

    _print_job(run(until_signalled(act)), as_json)


def _tell(act: Callable[[LetterDesk, asyncio.Event], Awaitable[Told]], as_json: bool) -> None:
    """Do something about a job, and print what became of its letters."""
    from ops.letter_text import job_with_letters
    from ops.service.letters import letter_desk
    from ops.settings import read_settings

    async def done(stopping: asyncio.Event) -> dict[str, Any]:
        async with letter_desk(read_settings()) as desk:
            return job_with_letters(await act(desk, stopping))

    _print_job(run(until_signalled(done)), as_json)


def _print_job(document: dict[str, Any], as_json: bool) -> None:
    from ops.letter_text import job_line

    print_found(document, as_json, job_line(document))
    if document.get("status") == "running":
        typer.echo(f"not done; go on with `switchyard dlt resume {document['job_id']}`", err=True)


def _filter(
    agent: str | None,
    letters: list[str] | None,
    error: str | None,
    fingerprint: str | None,
    tenant: str | None,
    ticket: str | None,
    since: str | None,
    until: str | None,
) -> LetterFilter:
    from contracts.letters import LetterFilter
    from ops.moments import moment
    from ops.wiring import agents_named

    now = datetime.now(UTC)
    return LetterFilter(
        groups=agents_named(agent),
        letter_ids=frozenset(letters or ()),
        error=error,
        fingerprint=fingerprint,
        tenant_id=tenant,
        ticket_id=ticket,
        since=moment(since, now=now) if since else None,
        until=moment(until, now=now) if until else None,
    )
