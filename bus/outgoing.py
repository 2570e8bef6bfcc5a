"""What a step sends out: its events and its paid calls, as records under ids that are the same at every retry."""

from collections.abc import Sequence
from datetime import UTC, datetime

from bus.codec import encode
from bus.tracing import current_traceparent
from contracts.errors import ContractBroken
from contracts.events import Event, ModelCalled, Payload, caused_id
from contracts.models import ModelCall
from contracts.ports import OutgoingRecord
from contracts.ticket import Signature, Step, event_deadline


def outgoing_of(step: Step, cause: Event, by: Signature) -> tuple[OutgoingRecord, ...]:
    """What the step emits, then its paid calls. Raises ContractBroken: one is about another ticket."""
    ticket = step.ticket
    payloads: Sequence[Payload] = step.emits
    if step.calls:
        payloads = [*payloads, *(_model_called(call, cause, by) for call in step.calls)]
    if not payloads:
        return ()
    for payload in payloads:
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
        for index, payload in enumerate(payloads)
    ]
    return tuple(records)


def _model_called(call: ModelCall, cause: Event, by: Signature) -> ModelCalled:
    return ModelCalled(
        ticket_id=cause.ticket_id,
        tenant_id=cause.tenant_id,
        event_id=cause.id,
        agent=by.agent,
        agent_version=by.version,
        **call.model_dump(),
    )
