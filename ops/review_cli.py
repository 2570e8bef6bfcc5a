"""`switchyard review`: what waits for a person, shown with its evidence and decided."""

from __future__ import annotations

import getpass
import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from ops.printing import Json, print_found
from ops.running import run

review_app = typer.Typer(no_args_is_help=True, help="What waits for a person: the evidence, and the decision.")

ReviewId = Annotated[str, typer.Argument(metavar="REVIEW", help="A review's id, as `list` shows it.")]
By = Annotated[str, typer.Option("--by", help="Who decides; the name you are logged in with if left out.")]


class Status(StrEnum):
    """Which reviews `list` shows."""

    OPEN = "open"
    DECIDED = "decided"
    CLOSED = "closed"
    ANY = "any"


class Agents(StrEnum):
    """Who a review can be handed back to."""

    TRIAGE = "triage"
    LOOKUP = "lookup"
    REASONING = "reasoning"


@review_app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    agent: Annotated[str | None, typer.Option(help="Asked for by this agent alone.")] = None,
    queue: Annotated[str | None, typer.Option(help="In this queue alone.")] = None,
    ticket: Annotated[str | None, typer.Option(help="About this ticket alone.")] = None,
    status: Annotated[Status, typer.Option(help="Open ones wait for a person.")] = Status.OPEN,
    older_than: Annotated[str, typer.Option(help="Asked for so long ago or longer: 15m, 2h, 3d.")] = "0s",
    as_json: Json = False,
) -> None:
    """Show what waits for a person, longest waiting first; at most 500."""
    from contracts.reviews import ReviewFilter, ReviewStatus
    from ops.review_text import as_lines
    from ops.reviews import age_in_s, list_reviews
    from ops.settings import read_settings

    wanted = ReviewFilter(
        tenant_id=tenant,
        asked_by=agent,
        status=None if status is Status.ANY else ReviewStatus(status),
        queue=queue,
        ticket_id=ticket,
        older_than_s=age_in_s(older_than),
    )
    reviews = run(list_reviews(wanted, read_settings()))
    print_found(reviews, as_json, as_lines(reviews))


@review_app.command()
def show(review: ReviewId, as_json: Json = False) -> None:
    """Show a review: the whole conversation, the evidence, and what approving it would do now."""
    from ops.review_text import as_text
    from ops.reviews import show_review
    from ops.settings import read_settings

    shown = run(show_review(review, read_settings()))
    print_found(shown, as_json, as_text(shown))


@review_app.command()
def approve(review: ReviewId, by: By = "", as_json: Json = False) -> None:
    """Have the proposed action carried out; where none is proposed, have the drafted reply sent."""
    _decide(review, "approve", by, as_json)


@review_app.command()
def edit(
    review: ReviewId,
    reply: Annotated[str, typer.Option(help="What the customer is to read instead.")] = "",
    change: Annotated[
        str, typer.Option(help='Fields of the proposed action and their new values, as JSON: {"item_ids": ["123"]}.')
    ] = "{}",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Approve with another reply to the customer, another detail of the action, or both."""
    if not reply and not _changes(change):
        raise typer.BadParameter("say what is to be different: --reply, --change or both")
    _decide(review, "edit", by, as_json, reply=reply, changes=_changes(change))


@review_app.command()
def answer(
    review: ReviewId,
    reply: Annotated[str, typer.Option(help="What the customer is to read.")],
    by: By = "",
    as_json: Json = False,
) -> None:
    """Answer the customer yourself; nothing else is done."""
    if not reply.strip():
        raise typer.BadParameter("an answer needs words", param_hint="--reply")
    _decide(review, "answer", by, as_json, reply=reply)


@review_app.command("hand-back")
def hand_back(
    review: ReviewId,
    to: Annotated[Agents, typer.Option(help="Who is to decide again.")],
    note: Annotated[str, typer.Option(help="What that agent is to know.")] = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Have an agent decide again, with your note."""
    _decide(review, "hand_back", by, as_json, to=to.value, note=note)


def _decide(review_id: str, decision: str, by: str, as_json: bool, **more: Any) -> None:
    from ops.reviews import decide_review, decision_of
    from ops.settings import read_settings

    who = by or getpass.getuser()
    now = run(decide_review(review_id, lambda review: decision_of(review, decision, who, **more), read_settings()))
    print_found(now, as_json, f"{now['review_id']}: {decision.replace('_', ' ')} by {who}; ticket {now['ticket_id']}")


def _changes(given: str) -> dict[str, Any]:
    try:
        changes = json.loads(given)
    except ValueError as error:
        raise typer.BadParameter(f"is no JSON: {error}", param_hint="--change") from None
    if not isinstance(changes, dict):
        raise typer.BadParameter("is no JSON object", param_hint="--change")
    return changes
