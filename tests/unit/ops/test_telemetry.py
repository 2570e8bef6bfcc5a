import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from ops.telemetry import log_to_stderr


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("bus", "llm", "ops", "state", "aiokafka"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_line_of_any_of_our_loggers_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("lookup", logging.INFO, worker=2)
    with TracerProvider().get_tracer("test").start_as_current_span("record") as span:
        logging.getLogger("bus.membership").info("partitions assigned: %s", [1, 2])
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("state.pool").exception("it failed", extra={"ticket_id": "t1"})
    logging.getLogger("asyncio").info("not ours, and no warning")

    assigned, failed = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert assigned["event"] == "partitions assigned: [1, 2]"
    assert (assigned["level"], assigned["logger"]) == ("info", "bus.membership")
    assert (assigned["service"], assigned["worker"]) == ("lookup", 2)
    assert assigned["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert failed["ticket_id"] == "t1"
    assert failed["exception"].endswith("ValueError: no")
