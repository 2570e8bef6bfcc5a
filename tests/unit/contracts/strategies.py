"""Hypothesis strategies for the contracts."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from contracts.events import CustomerReplied, Event, TicketSubmitted

NOW = datetime(2030, 1, 1, tzinfo=UTC)

identifiers = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
any_text = st.text(max_size=60)  # NUL included
submissions = st.builds(
    TicketSubmitted,
    ticket_id=identifiers,
    tenant_id=identifiers,
    from_email=any_text,
    subject=any_text,
    body=any_text,
    order_ref=st.none() | any_text,
    message_id=st.none() | any_text,
)


def submitted(body: str = "Where is my order?", event_id: str = "e1", **fields: object) -> Event:
    """A submission as triage receives it."""
    data = TicketSubmitted.model_validate(
        {"ticket_id": "t1", "from_email": "ann@example.com", "subject": "Order", "body": body} | fields
    )
    return Event(id=event_id, source="test", time=NOW, data=data, deadline=NOW)


def replied(body: str, event_id: str = "e2", **fields: object) -> Event:
    """A follow-up as triage receives it."""
    data = CustomerReplied.model_validate({"ticket_id": "t1", "body": body} | fields)
    return Event(id=event_id, source="test", time=NOW, data=data)
