"""Process-wide set-up: JSON logs and tracing. Called once by a command, never at import."""

import json
import logging
import sys
from datetime import UTC, datetime

from opentelemetry import trace

_OF_EVERY_RECORD = {*logging.makeLogRecord({}).__dict__, "message"}


def trace_records(service: str) -> None:
    """Give every handled record a trace id. Once a process."""
    from opentelemetry.sdk.resources import Resource  # the SDK takes a while: for workers alone
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": f"switchyard-{service}"})))


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
