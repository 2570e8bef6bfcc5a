"""What the book of model calls sends out: an event for each call, and one for each level of a budget."""

from datetime import UTC, datetime

from bus.codec import encode
from bus.tracing import current_traceparent
from contracts.events import BudgetReached, ModelCalled, Payload
from contracts.model_ports import ProviderCall
from contracts.models import ModelCall
from contracts.ports import OutgoingRecord
from state.model_calls import Alert


def usage_record(call: ProviderCall, made: ModelCall) -> OutgoingRecord:
    """The event of a provider call."""
    context = call.context
    payload = ModelCalled(
        ticket_id=context.ticket_id,
        tenant_id=context.tenant_id,
        event_id=context.event_id,
        agent=context.agent,
        agent_version=context.agent_version,
        **dict(made),
    )
    return _encoded(payload, f"call-{call.id}", context.agent)


def alert_record(alert: Alert) -> OutgoingRecord:
    """The event of a level that a budget reached."""
    budget, context = alert.budget, alert.call.context
    payload = BudgetReached(
        ticket_id=context.ticket_id,
        tenant_id=context.tenant_id,
        scope=budget.scope,
        scope_id=budget.scope_id,
        window=budget.window,
        level=alert.level,
        unit=alert.unit,
        spent=alert.spent,
        limit=float((budget.usd if alert.unit == "usd" else budget.tokens) or 0),
    )
    name = f"budget-{budget.scope}-{budget.scope_id}-{budget.window}-{alert.unit}-{alert.level}"
    return _encoded(payload, name, context.agent)


def _encoded(payload: Payload, event_id: str, agent: str) -> OutgoingRecord:
    return encode(
        payload,
        cause=None,
        event_id=event_id,
        time=datetime.now(UTC),
        source=f"urn:switchyard:agent:{agent}",
        deadline=None,
        traceparent=current_traceparent(),
    )
