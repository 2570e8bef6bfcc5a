"""Process-wide set-up: JSON logs and tracing. Called once by a command, never at import."""

import json
import logging
import random
import sys
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.util._decorator import _AgnosticContextManager

_OF_EVERY_RECORD = {*logging.makeLogRecord({}).__dict__, "message"}


def trace_records() -> None:
    """Give every handled record a trace id, for logs, headers and dead letters. Once a process.

    Nothing exports spans yet, so nothing records any: a span of the SDK costs as much as the rest of a step.
    """
    trace.set_tracer_provider(_TraceIds())


def log_to_stderr(service: str, level: int, **fields: object) -> None:
    """Log JSON lines of at least `level` to standard error; standard output belongs to what a command says.

    Libraries have their warnings logged. Each line tells the service and the fields given.
    """
    always = {"service": service, **fields}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine(always))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for package in ("bus", "llm", "ops", "state"):
        logging.getLogger(package).setLevel(level)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it logs, we log or say in our own words


class _JsonLine(logging.Formatter):
    """A log record as one JSON object."""

    def __init__(self, always: dict[str, object]) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        written = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        line: dict[str, object] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "timestamp": written,
        }
        line |= {"logger": record.name, **self._always}
        line |= {name: value for name, value in record.__dict__.items() if name not in _OF_EVERY_RECORD}  # `extra`
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = trace.format_trace_id(context.trace_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TraceIds(trace.TracerProvider):
    """Makes spans that are nothing but their ids."""

    def get_tracer(self, *_of_what: object, **_more: object) -> trace.Tracer:
        return _IdTracer()


class _IdTracer(trace.Tracer):
    def start_span(self, name: str, context: Context | None = None, *_told: Any, **_more: Any) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        return trace.NonRecordingSpan(
            trace.SpanContext(
                trace_id=parent.trace_id if parent.is_valid else random.getrandbits(128) | 1,
                span_id=random.getrandbits(64) | 1,
                is_remote=False,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
                trace_state=parent.trace_state,
            )
        )

    def start_as_current_span(
        self, name: str, context: Context | None = None, *_told: Any, **_more: Any
    ) -> _AgnosticContextManager[trace.Span]:
        return trace.use_span(self.start_span(name, context))
