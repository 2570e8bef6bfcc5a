"""The span around a provider call, in OpenTelemetry's gen_ai names. Content is never recorded."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from llm.provider import Completion, Prompt


@contextmanager
def chat_span(tracer: Tracer, provider_name: str, model: str, prompt: Prompt) -> Iterator[Span]:
    """A `chat MODEL` span; an error is told by its class alone, since a message may quote the provider."""
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider_name,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": prompt.request.max_output_tokens,
        "gen_ai.output.type": "json",
        "gen_ai.agent.name": prompt.call.agent,
        "gen_ai.conversation.id": prompt.call.ticket_id,
    }
    with tracer.start_as_current_span(
        f"chat {model}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise


def tell_usage(span: Span, completion: Completion) -> None:
    """Note on the span what the provider accounted for."""
    span.set_attribute("gen_ai.response.id", completion.call_id)
    span.set_attribute("gen_ai.response.model", completion.model)
    span.set_attribute("gen_ai.usage.input_tokens", completion.input_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", completion.output_tokens)
    span.set_attribute("gen_ai.usage.cache_read.input_tokens", completion.cache_read_tokens)
    span.set_attribute("gen_ai.usage.cache_creation.input_tokens", completion.cache_write_tokens)
