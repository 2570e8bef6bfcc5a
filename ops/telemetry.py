"""Process-wide set-up: JSON logs and tracing. Called once by a command, never at import."""

import logging
import sys

import structlog
from opentelemetry import trace


def trace_records(service: str) -> None:
    """Give every handled record a trace id. Once a process."""
    from opentelemetry.sdk.resources import Resource  # the SDK takes a quarter of a second: for workers alone
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": f"switchyard-{service}"})))


def log_to_stderr(service: str, level: int) -> None:
    """Log JSON lines of at least `level` to standard error; standard output belongs to what a command says."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it logs, we log or say in our own words
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)


def _with_trace(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
