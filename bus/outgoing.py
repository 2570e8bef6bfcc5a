"""What a step sends out: its events, as records under ids that are the same at every retry."""

from datetime import UTC, datetime

from bus.codec import encode
from bus.tracing import current_traceparent
from contracts.errors import ContractBroken
from contracts.events import Event, caused_id
from contracts.ports import OutgoingRecord
from contracts.ticket import Signature, Step, event_deadline


def outgoing_of(step: Step, cause: Event, by: Signature) -> tuple[OutgoingRecord, ...]:
    """What the step emits. Raises ContractBroken: one is about another ticket."""
    ticket = step.ticket
    if not step.emits:
        return ()
    for payload in step.emits:
        if payload.ticket_id != ticket.ticket_id or payload.tenant_id != ticket.tenant_id:
            raise ContractBroken(f"{payload.type_name()} is about another ticket")
    time, traceparent = datetime.now(UTC), current_traceparent()
    source = f"urn:switchyard:agent:{by.agent}"
    records = [
        encode(
            payload,
            cause=cause,
            event_id=caused_id(cause.id, by.agent, index),
            time=time,
            source=source,
            deadline=event_deadline(payload, cause),
            traceparent=traceparent or cause.traceparent,
        )
        for index, payload in enumerate(step.emits)
    ]
    return tuple(records)
