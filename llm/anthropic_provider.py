"""Anthropic's Messages API behind the Provider port. Importing this module takes the SDK's two seconds."""

from collections.abc import Mapping

import httpx2
from anthropic import AnthropicError, APIStatusError, AsyncAnthropic, DefaultAioHttpClient
from anthropic.types import MessageParam
from pydantic import BaseModel, Field

from contracts.errors import Misconfigured
from llm.edge import CONNECTIONS, TransportError, failure, headroom, read_body, unasked, unproxied, within
from llm.provider import Completion, Prompt, sendable

NAME = "anthropic"
_LIMITS = ("requests-{}", "input-tokens-{}", "output-tokens-{}", "tokens-{}")


class _Usage(BaseModel):
    input_tokens: int = Field(ge=0)  # without what was read from or written to the prompt cache
    output_tokens: int = Field(ge=0)
    cache_read_input_tokens: int | None = Field(default=None, ge=0)
    cache_creation_input_tokens: int | None = Field(default=None, ge=0)


class _Block(BaseModel):
    type: str
    text: str = ""


class _Message(BaseModel):
    id: str
    model: str
    content: list[_Block]
    usage: _Usage | None = None


def connect(api_key: str, base_url: str | None = None) -> AsyncAnthropic:
    """A client that never retries and records no content. Close it at the end. Raises Misconfigured: no key."""
    if not api_key:
        raise Misconfigured("the Anthropic API key is empty")
    return AsyncAnthropic(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        http_client=DefaultAioHttpClient(mounts=unproxied(base_url), limits=CONNECTIONS),
        open_telemetry={"traces": False, "propagation": False},  # the gateway has its own span
    )


async def greet(client: AsyncAnthropic, timeout_s: float) -> None:
    """Ask for one of the models there are, which costs nothing. Raises as `Provider.complete`."""
    async with within(timeout_s, NAME):
        try:
            await client.models.with_raw_response.list(limit=1, timeout=timeout_s)
        except APIStatusError as error:
            raise failure(NAME, error.status_code, error.response.headers, error.response.text) from error
        except AnthropicError as error:
            raise unasked(NAME, error) from error


class AnthropicProvider:
    """One Claude model. The system prompt is marked as a cacheable prefix."""

    def __init__(self, client: AsyncAnthropic, model: str) -> None:
        self._client = client
        self._model = model

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask the model once; see `llm.provider.Provider`."""
        async with within(prompt.timeout_s, NAME):
            body, headers = await self._create(prompt)
        message = read_body(NAME, body, _Message)
        usage = message.usage or _Usage(input_tokens=0, output_tokens=0)
        reads = usage.cache_read_input_tokens or 0
        writes = usage.cache_creation_input_tokens or 0
        return Completion(
            text="".join(block.text for block in message.content if block.type == "text"),
            call_id=message.id,
            model=message.model,
            input_tokens=usage.input_tokens + reads + writes,
            output_tokens=usage.output_tokens,
            cache_read_tokens=reads,
            cache_write_tokens=writes,
            usage_known=message.usage is not None,
            left=headroom(headers, "anthropic-ratelimit", _LIMITS, "remaining"),
            limit=headroom(headers, "anthropic-ratelimit", _LIMITS, "limit"),
        )

    async def _create(self, prompt: Prompt) -> tuple[str, Mapping[str, str]]:
        """The answer's body as it came, for the SDK's own models take any shape for an answer; and its headers.

        By `post`: `create` holds each value of the request against its types first, a fifth of the call.
        """
        system = sendable(prompt.request.system)
        try:
            response = await self._client.post(
                "/v1/messages",
                cast_to=httpx2.Response,
                body={
                    "model": self._model,
                    "max_tokens": prompt.request.max_output_tokens,
                    "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
                    "messages": _messages(prompt),
                    "output_config": {"format": {"type": "json_schema", "schema": prompt.schema}},
                },
                options={"timeout": prompt.timeout_s},
            )
        except APIStatusError as error:
            raise failure(NAME, error.status_code, error.response.headers, error.response.text) from error
        except (AnthropicError, TransportError) as error:
            raise unasked(NAME, error) from error
        return response.text, dict(response.headers)


def _messages(prompt: Prompt) -> list[MessageParam]:
    return [
        {"role": "assistant", "content": text} if role == "assistant" else {"role": "user", "content": text}
        for role, text in prompt.turns()
    ]
