"""OpenAI's Chat Completions API, and servers that speak it, behind the Provider port."""

import re
from collections.abc import Mapping

import httpx2
from openai import APIStatusError, AsyncOpenAI, DefaultAioHttpClient, OpenAIError
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, Field

from contracts.errors import Misconfigured
from llm.edge import CONNECTIONS, TransportError, failure, headroom, read_body, unasked, unproxied, within
from llm.provider import Completion, Prompt, sendable
from llm.schema import title_of

NAME = "openai"
_LIMITS = ("{}-requests", "", "", "{}-tokens")


class _PromptDetails(BaseModel):
    cached_tokens: int | None = Field(default=None, ge=0)
    cache_write_tokens: int | None = Field(default=None, ge=0)


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)  # cached ones included
    completion_tokens: int = Field(ge=0)
    prompt_tokens_details: _PromptDetails | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _ChatCompletion(BaseModel):
    id: str
    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def connect(api_key: str, base_url: str | None = None) -> AsyncOpenAI:
    """A client that never retries. Close it at the end. Raises Misconfigured: no key."""
    if not api_key:
        raise Misconfigured("the OpenAI API key is empty")
    return AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        http_client=DefaultAioHttpClient(mounts=unproxied(base_url), limits=CONNECTIONS),
    )


async def greet(client: AsyncOpenAI, timeout_s: float) -> None:
    """Ask which models there are, which costs nothing. Raises as `Provider.complete`."""
    async with within(timeout_s, NAME):
        try:
            await client.models.with_raw_response.list(timeout=timeout_s)
        except APIStatusError as error:
            raise failure(NAME, error.status_code, error.response.headers, error.response.text) from error
        except OpenAIError as error:
            raise unasked(NAME, error) from error


class OpenAIProvider:
    """One model. The system prompt comes first and never varies, so that the provider caches it by itself."""

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client
        self._model = model

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask the model once; see `llm.provider.Provider`."""
        async with within(prompt.timeout_s, NAME):
            body, headers = await self._create(prompt)
        chat = read_body(NAME, body, _ChatCompletion)
        usage = chat.usage or _Usage(prompt_tokens=0, completion_tokens=0)
        details = usage.prompt_tokens_details or _PromptDetails()
        return Completion(
            text=chat.choices[0].message.content or "",
            call_id=chat.id,
            model=chat.model,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=details.cached_tokens or 0,
            cache_write_tokens=details.cache_write_tokens or 0,
            usage_known=chat.usage is not None,
            left=headroom(headers, "x-ratelimit", _LIMITS, "remaining"),
            limit=headroom(headers, "x-ratelimit", _LIMITS, "limit"),
        )

    async def _create(self, prompt: Prompt) -> tuple[str, Mapping[str, str]]:
        """The answer's body as it came, for the SDK's own models take any shape for an answer; and its headers.

        By `post`: `create` holds each value of the request against its types first, a fifth of the call.
        """
        name = re.sub(r"[^A-Za-z0-9_-]", "_", title_of(prompt.request.answer))[:64]
        try:
            response = await self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body={
                    "model": self._model,
                    "max_completion_tokens": prompt.request.max_output_tokens,
                    "messages": _messages(prompt),
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": name, "schema": prompt.schema, "strict": True},
                    },
                },
                options={"timeout": prompt.timeout_s},
            )
        except APIStatusError as error:
            raise failure(NAME, error.status_code, error.response.headers, error.response.text) from error
        except (OpenAIError, TransportError) as error:
            raise unasked(NAME, error) from error
        return response.text, dict(response.headers)


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": sendable(prompt.request.system)}]
    for role, text in prompt.turns():
        if role == "assistant":
            messages.append({"role": "assistant", "content": text})
        else:
            messages.append({"role": "user", "content": text})
    return messages
