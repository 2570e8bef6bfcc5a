"""Reviews as JSON values, and as lines for a terminal."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from contracts.events import ReviewDecided
from contracts.reviews import Review
from contracts.ticket import Ticket


def told(review: Review) -> dict[str, Any]:
    """A review as JSON values, without its evidence."""
    request, move = review.request, review.last_move
    return {
        "review_id": request.review_id,
        "ticket_id": request.ticket_id,
        "tenant_id": request.tenant_id,
        "round": request.round,
        "status": str(review.status),
        "queue": review.queue,
        "asked_by": request.asked_by,
        "reason": request.reason,
        "requested_at": review.requested_at.isoformat(),
        "waiting_s": round((datetime.now(UTC) - review.requested_at).total_seconds(), 1) if review.is_open else None,
        "due_at": review.due_at.isoformat() if review.due_at else None,
        "last_move": {"type": move.type_name()} | move.model_dump(mode="json") if move else None,
        "moved_at": review.moved_at.isoformat() if review.moved_at else None,
        "version": review.version,
    }


def said(ticket: Ticket, number: int) -> dict[str, Any]:
    """What was said in a round of the ticket, as JSON values."""
    round_ = ticket.round(number)
    return {
        "round": number,
        "from": round_.from_email,
        "subject": round_.subject,
        "text": round_.body,
        "reply": round_.reply,
        "desk": str(round_.desk),
        "disposition": round_.disposition and str(round_.disposition),
        "decided_by": round_.person.decided_by if round_.person else "",
    }


def what_became(review: Review) -> str:
    """Why a review is not open any more, as a clause."""
    at = f"{review.moved_at:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(review.last_move, ReviewDecided):
        did = {"approve": "approved", "edit": "approved with changes", "answer": "answered"}
        verb = did.get(review.last_move.decision, f"handed back to {review.last_move.to}")
        return f"{review.last_move.decided_by} {verb} it at {at}"
    return f"nobody decided in time, and it was closed at {at}"


def as_lines(reviews: list[dict[str, Any]]) -> str:
    """Reviews for a terminal, one a line."""
    if not reviews:
        return "nothing waits for a person"
    lines = [
        f"{one['review_id']}  {one['status']}  ticket {one['ticket_id']}  tenant {one['tenant_id']}  "
        f"{one['asked_by']}: {one['reason']}  since {one['requested_at']}"
        + (f"  [{one['queue']}]" * bool(one["queue"]))
        for one in reviews
    ]
    return _plain("\n".join(lines))


def as_text(shown: Mapping[str, Any]) -> str:
    """A review for a terminal, with what a person needs to decide it."""
    lines = [as_lines([dict(shown)]), f"  due: {shown['due_at'] or '-'}", "conversation:"]
    for one in shown["conversation"]:
        ended = one["disposition"] or one["desk"]
        who, about = one["from"] or "unknown sender", " ".join(one["subject"].split())
        lines.append(f"  round {one['round']} ({ended}), {who}: {about}".rstrip())
        lines += [f"    > {line}" for line in one["text"].splitlines()]
        lines += [f"    < {line}" for line in one["reply"].splitlines()]
    lines.append("evidence:")
    for name, value in shown["evidence"].items():
        lines += [f"  {name}: {_shown(one)}" for one in (value if isinstance(value, list) else [value]) if one]
    return _plain("\n".join([*lines, _approval_line(shown["approve"])]))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items() if one not in (None, [], ""))
    return str(value).strip().replace("\n", "\n    ")


def _plain(text: str) -> str:
    """Text without what a terminal would obey: strangers wrote some of it."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _approval_line(approval: Mapping[str, Any]) -> str:
    if not approval["possible"]:
        return f"cannot be approved: {approval['why_not']}"
    return f"approving it would: {_shown(approval['does'])}"
