"""W3C trace context from the record that came to the records that leave."""

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bus.delivery import Delivery
from bus.handler import Handler, Middleware
from bus.outcome import DeadLetter, Outcome

_W3C = TraceContextTextMapPropagator()


def traced(group: str) -> Middleware:
    """Open one `process <topic>` span a delivery, a child of the record's own trace."""

    async def middleware(call_next: Handler, delivery: Delivery) -> Outcome:
        with trace.get_tracer("switchyard.bus").start_as_current_span(
            f"process {delivery.record.topic}",
            context=_W3C.extract(_carrier(delivery)),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes(group, delivery),
        ) as span:
            outcome = await call_next(delivery)
            span.set_attribute("switchyard.outcome", type(outcome).__name__)
            if isinstance(outcome, DeadLetter):
                span.set_status(trace.StatusCode.ERROR, type(outcome.error).__name__)
            return outcome

    return middleware


def current_traceparent() -> str | None:
    """The `traceparent` header of the span we are in, if any."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def trace_id_of(delivery: Delivery) -> str | None:
    """The id of the trace a delivery belongs to, as 32 hex digits, if any."""
    span = trace.get_current_span()
    if not span.get_span_context().is_valid:
        span = trace.get_current_span(_W3C.extract(_carrier(delivery)))
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def is_set_up() -> bool:
    """Whether anybody set up tracing: spans that go nowhere cost as much as the step itself."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _carrier(delivery: Delivery) -> dict[str, str]:
    headers = dict(delivery.record.headers)
    return {
        name: value.decode("ascii", "replace") for name in ("traceparent", "tracestate") if (value := headers.get(name))
    }


def _attributes(group: str, delivery: Delivery) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": delivery.record.topic,
        "messaging.destination.partition.id": str(delivery.record.partition),
        "messaging.consumer.group.name": group,
        "messaging.kafka.offset": delivery.record.offset,
    }
