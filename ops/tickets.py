"""What is known of one ticket, for people."""

from typing import Any

from contracts.errors import SupportError
from ops.settings import Settings
from ops.wiring import database
from state.postgres_tickets import PostgresTickets


async def read_ticket(ticket_id: str, settings: Settings) -> dict[str, Any]:
    """The ticket, its version and its timeline. Raises SupportError: there is no such ticket."""
    async with database(settings) as pool:
        store = PostgresTickets(pool)
        ticket = await store.load(ticket_id)
        if ticket is None:
            raise SupportError(f"there is no ticket {ticket_id!r} (its record may still wait in support.tickets.v1)")
        timeline = await store.timeline(ticket_id)
    return {
        "ticket": ticket.model_dump(mode="json") | {"status": ticket.status},
        "version": ticket.version,
        "timeline": [{"at": entry.at.isoformat(), "what": entry.what, **entry.detail} for entry in timeline],
    }


def as_text(document: dict[str, Any]) -> str:
    """The same as lines for a terminal."""
    ticket = document["ticket"]
    head = f"{ticket['ticket_id']}  {ticket['status']}  version {document['version']}  tenant {ticket['tenant_id']}"
    rounds = [
        f"  round {r['number']}: {r['label'] or '-'}, {r['disposition'] or r['desk']}, "
        f"{r['settled_by'] or '-'}, ${r['cost_usd']:.6f}"
        for r in ticket["rounds"]
    ]
    happened = [f"  {_line(entry)}" for entry in document["timeline"]]
    return "\n".join([head, *rounds, "timeline:", *happened])


def _line(entry: dict[str, Any]) -> str:
    known = {k: v for k, v in entry.items() if k not in ("at", "what", "payload") and v is not None}
    return f"{entry['at']}  {entry['what']:<8}  " + " ".join(f"{k}={v}" for k, v in known.items())
