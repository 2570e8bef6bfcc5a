import json
import logging

import pytest
from opentelemetry import trace

from ops.telemetry import log_to_stderr, trace_records


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> trace.Tracer:
    """What a worker's spans come from."""
    chosen: list[trace.TracerProvider] = []
    monkeypatch.setattr(trace, "set_tracer_provider", chosen.append)  # it can be set once a process
    trace_records()
    return chosen[0].get_tracer("test")


def test_a_line_of_any_of_our_loggers_is_one_json_object(
    capsys: pytest.CaptureFixture[str], tracer: trace.Tracer
) -> None:
    log_to_stderr("lookup", logging.INFO, worker=2)
    with tracer.start_as_current_span("record") as span:
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


def test_a_trace_goes_on_through_its_spans_and_each_has_an_id_of_its_own(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("record") as outer, tracer.start_as_current_span("chat") as inner:
        assert trace.get_current_span() is inner
    with tracer.start_as_current_span("record") as another:
        pass
    first, second, third = (span.get_span_context() for span in (outer, inner, another))
    assert first.is_valid
    assert first.trace_flags.sampled
    assert first.trace_id == second.trace_id != third.trace_id
    assert len({first.span_id, second.span_id, third.span_id}) == 3
