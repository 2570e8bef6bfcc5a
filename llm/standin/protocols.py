"""The two providers' shapes: a request read into a question, an answer written as each of them writes it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

_SSE_PIECE_CHARS = 64


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks, whichever protocol it came in."""

    model: str
    system: str
    content: str  # the first thing the user says; what follows it is a repair
    text: str  # all that is said
    title: str  # of the answer's schema, "" where free text is asked for
    schema: dict[str, Any]
    stream: bool
    caches_prefix: bool  # the system prompt may be kept in the provider's prompt cache
    digest: str  # SHA-256 over the canonical body


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, with the tokens it is billed for; reads and writes of the prompt cache are parts of the input."""

    id: str
    model: str
    text: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


class Dialect(Protocol):
    """How one provider spells things."""

    name: str

    def read(self, body: dict[str, Any]) -> Question:
        """The question a request's body asks. Raises ValueError: it is no request of this protocol."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer's body."""

    def stream(self, answer: Answer) -> Iterator[str]:
        """The answer as server-sent events."""

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        """An error's body."""


class Anthropic:
    """POST /v1/messages."""

    name = "anthropic"

    def read(self, body: dict[str, Any]) -> Question:
        """The question a request's body asks. Raises ValueError: it is no request of this protocol."""
        _require(body, "model", "messages", "max_tokens")
        schema = ((body.get("output_config") or {}).get("format") or {}).get("schema") or {}
        system = body.get("system", "")
        marked = isinstance(system, list) and any(block.get("cache_control") for block in system)
        return _question(body, _text(system), body["messages"], schema, caches_prefix=marked)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer's body."""
        return {
            **self._opening(answer),
            "content": [{"type": "text", "text": answer.text}] if answer.text else [],
            "stop_reason": "end_turn",
            "usage": self._usage(answer),
        }

    def stream(self, answer: Answer) -> Iterator[str]:
        """The answer as server-sent events."""
        usage = self._usage(answer)
        start = {**self._opening(answer), "usage": {**usage, "output_tokens": 1}}
        yield _event({"type": "message_start", "message": start})
        yield _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        for piece in _pieces(answer.text):
            delta = {"type": "text_delta", "text": piece}
            yield _event({"type": "content_block_delta", "index": 0, "delta": delta})
        yield _event({"type": "content_block_stop", "index": 0})
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": ending, "usage": usage})
        yield _event({"type": "message_stop"})

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        """An error's body."""
        return {"type": "error", "error": {"type": code, "message": message}}

    def _opening(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": answer.id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _usage(self, answer: Answer) -> dict[str, int]:
        return {
            "input_tokens": answer.input_tokens - answer.cache_read_tokens - answer.cache_write_tokens,
            "output_tokens": answer.output_tokens,
            "cache_read_input_tokens": answer.cache_read_tokens,
            "cache_creation_input_tokens": answer.cache_write_tokens,
        }


class OpenAI:
    """POST /v1/chat/completions."""

    name = "openai"

    def read(self, body: dict[str, Any]) -> Question:
        """The question a request's body asks. Raises ValueError: it is no request of this protocol."""
        _require(body, "model", "messages")
        form = (body.get("response_format") or {}).get("json_schema") or {}
        schema = {"title": form.get("name", ""), **(form.get("schema") or {})} if form else {}
        said = [turn for turn in body["messages"] if turn.get("role") in ("system", "developer")]
        turns = [turn for turn in body["messages"] if turn not in said]
        system = "\n".join(_text(turn.get("content")) for turn in said)
        return _question(body, system, turns, schema, caches_prefix=True)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer's body."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**self._opening(answer, "chat.completion"), "choices": [choice], "usage": self._usage(answer)}

    def stream(self, answer: Answer) -> Iterator[str]:
        """The answer as server-sent events; usage comes in a last chunk of its own."""
        opening = self._opening(answer, "chat.completion.chunk")
        for delta in ({"role": "assistant", "content": ""}, *({"content": piece} for piece in _pieces(answer.text))):
            yield _data({**opening, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        yield _data({**opening, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield _data({**opening, "choices": [], "usage": self._usage(answer)})
        yield "data: [DONE]\n\n"

    def error(self, status: int, code: str, message: str) -> dict[str, Any]:
        """An error's body."""
        return {"error": {"message": message, "type": code, "param": None, "code": code}}

    def _opening(self, answer: Answer, kind: str) -> dict[str, Any]:
        return {"id": answer.id, "object": kind, "created": 0, "model": answer.model}

    def _usage(self, answer: Answer) -> dict[str, Any]:
        return {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
            "prompt_tokens_details": {"cached_tokens": answer.cache_read_tokens},
        }


def _question(
    body: dict[str, Any], system: str, turns: list[dict[str, Any]], schema: dict[str, Any], *, caches_prefix: bool
) -> Question:
    texts = [_text(turn.get("content")) for turn in turns]
    user_texts = [text for turn, text in zip(turns, texts, strict=True) if turn.get("role") == "user"]
    if not user_texts:
        raise ValueError("messages: a user must say something")
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Question(
        model=str(body["model"]),
        system=system,
        content=user_texts[0],
        text="\n".join([system, *texts]),
        title=str(schema.get("title", "")),
        schema=schema,
        stream=bool(body.get("stream")),
        caches_prefix=caches_prefix,
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
    )


def _require(body: dict[str, Any], *names: str) -> None:
    for name in names:
        if name not in body:
            raise ValueError(f"{name}: field required")
    turns = body["messages"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("messages: must be a list of objects")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [] if isinstance(part, dict))


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _SSE_PIECE_CHARS):
        yield text[start : start + _SSE_PIECE_CHARS]


def _event(data: dict[str, Any]) -> str:
    return f"event: {data['type']}\n{_data(data)}"


def _data(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
