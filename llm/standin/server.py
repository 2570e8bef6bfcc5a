"""The model stand-in: both providers' HTTP APIs on loopback, a rule-based wit, scripted faults and a ledger."""

import asyncio
import contextlib
import json
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llm.standin.faults import UNPAID, Faults, Kind, Rule, spoiled
from llm.standin.ledger import Ledger
from llm.standin.protocols import Answer, Anthropic, Dialect, OpenAI, Question

Wit = Callable[[str, str, str], dict[str, Any]]
"""(title of the answer's schema, system prompt, content) -> the answer. LookupError: it knows no such schema."""

MODELS = ("claude-haiku-4-5", "claude-sonnet-5", "gpt-4.1-mini", "gpt-5.4-mini")
_MARKER = re.compile(r"\[ticket:([^\]\s]{1,100})\]")
_CHARS_A_TOKEN = 4
_MIN_CACHED_TOKENS = 1024  # shorter prefixes are not cached, as with the real ones
_DRIP_PIECES = 20
_REFUSALS: dict[Kind, tuple[int, str]] = {
    Kind.RATE_LIMITED: (429, "rate_limit_error"),
    Kind.QUOTA_EXHAUSTED: (429, "insufficient_quota"),
    Kind.SERVER_ERROR: (500, "api_error"),
    Kind.OVERLOADED: (529, "overloaded_error"),
    Kind.ERROR_IN_200: (200, "overloaded_error"),
}


def create_app(wit: Wit, *, ledger: Ledger, faults: Faults, latency_s: float = 0.0) -> Starlette:
    """The stand-in as an ASGI app. Any model name and any key are welcome."""
    standin = _StandIn(wit, ledger, faults, latency_s)
    return Starlette(
        routes=[
            Route("/v1/messages", standin.messages, methods=["POST"]),
            Route("/v1/chat/completions", standin.chat_completions, methods=["POST"]),
            Route("/v1/models", standin.models),
            Route("/faults", standin.faults, methods=["GET"]),
            Route("/faults", standin.set_faults, methods=["POST"]),
            Route("/ledger", standin.ledger),
            Route("/ledger/summary", standin.ledger_summary),
        ]
    )


class _StandIn:
    def __init__(self, wit: Wit, ledger: Ledger, faults: Faults, latency_s: float) -> None:
        self._wit = wit
        self._ledger = ledger
        self._faults = faults
        self._latency_s = latency_s
        self._cached_prefixes: set[tuple[str, str]] = set()

    async def messages(self, request: Request) -> Response:
        return await self._serve(request, Anthropic())

    async def chat_completions(self, request: Request) -> Response:
        return await self._serve(request, OpenAI())

    async def models(self, request: Request) -> Response:
        """The models there are; a rule for this path, and for the key where it names one, refuses."""
        rule = self._faults.strike(request.url.path, _key_of(request))
        if rule is not None and rule.kind in UNPAID:
            status, code = _REFUSALS.get(rule.kind, (rule.status, "invalid_request_error"))
            return JSONResponse(Anthropic().error(status, code, "a scripted fault"), status_code=status)
        listed = [
            {"id": name, "type": "model", "object": "model", "display_name": name, "created": 0, "owned_by": "standin"}
            for name in MODELS
        ]
        return JSONResponse({"object": "list", "data": listed, "has_more": False})

    async def faults(self, request: Request) -> Response:
        return JSONResponse([{name: getattr(rule, name) for name in rule.__slots__} for rule in self._faults.rules])

    async def set_faults(self, request: Request) -> Response:
        """Put the rules posted, a JSON list, in the place of those in force."""
        try:
            self._faults.replace([Rule.of(said) for said in await request.json()])
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return await self.faults(request)

    async def ledger(self, request: Request) -> Response:
        return Response(self._ledger.lines(), media_type="application/x-ndjson")

    async def ledger_summary(self, request: Request) -> Response:
        return JSONResponse(self._ledger.summary())

    async def _serve(self, request: Request, dialect: Dialect) -> Response:
        came = _Came(time.time(), dialect.name, _key_of(request))
        try:
            question = dialect.read(_object(await request.body()))
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse(dialect.error(400, "invalid_request_error", str(error)), status_code=400)
        rule = self._faults.strike(question.model, question.text)
        kind = rule.kind if rule else None
        await asyncio.sleep(self._latency_s + (rule.seconds if rule and kind is Kind.SLOW else 0))
        if rule is not None and kind in UNPAID:
            return self._refuse(rule, question, dialect, came)
        try:
            text = self._answer_text(question)
        except LookupError:
            why = f"the stand-in has no wit for answers titled {question.title}"
            return JSONResponse(dialect.error(400, "invalid_request_error", why), status_code=400)
        answer = self._billed(question, spoiled(text, question.schema, kind) if kind else text)
        self._note(question, came, answer, status=200)
        return _deliver(question, dialect, answer, rule)

    def _answer_text(self, question: Question) -> str:
        if not question.title:
            return "I am a stand-in: ask me with a JSON schema."
        return json.dumps(self._wit(question.title, question.system, question.content), ensure_ascii=False)

    def _billed(self, question: Question, text: str) -> Answer:
        reads, writes = self._cached_tokens(question)
        return Answer(
            id=f"standin_{uuid.uuid4().hex}",
            model=question.model,
            text=text,
            input_tokens=_tokens(question.text) + _tokens(json.dumps(question.schema)),
            output_tokens=_tokens(text),
            cache_read_tokens=reads,
            cache_write_tokens=writes,
        )

    def _cached_tokens(self, question: Question) -> tuple[int, int]:
        """Tokens read from and written to the prompt cache: a long system prompt is written once and then read."""
        tokens = _tokens(question.system)
        if not question.caches_prefix or tokens < _MIN_CACHED_TOKENS:
            return 0, 0
        prefix = (question.model, question.system)
        if prefix in self._cached_prefixes:
            return tokens, 0
        self._cached_prefixes.add(prefix)
        return 0, tokens

    def _refuse(self, rule: Rule, question: Question, dialect: Dialect, came: "_Came") -> Response:
        status, code = _REFUSALS.get(rule.kind, (rule.status, "invalid_request_error"))
        self._note(question, came, None, status=status)
        headers = {"retry-after": f"{rule.retry_after_s:g}"} if rule.retry_after_s is not None else {}
        return JSONResponse(dialect.error(status, code, "a scripted fault"), status_code=status, headers=headers)

    def _note(self, question: Question, came: "_Came", answer: Answer | None, *, status: int) -> None:
        marker = _MARKER.search(question.text)
        self._ledger.note(
            {
                "id": answer.id if answer else None,
                "arrived": came.at,
                "time": time.time(),
                "protocol": came.protocol,
                "key": came.key,
                "model": question.model,
                "schema": question.title,
                "request_digest": question.digest,
                "input_tokens": answer.input_tokens if answer else 0,
                "output_tokens": answer.output_tokens if answer else 0,
                "ticket": marker[1] if marker else None,
                "status": status,
                "paid": answer is not None,
            }
        )


@dataclass(frozen=True, slots=True)
class _Came:
    """How a request came in."""

    at: float
    protocol: str
    key: str  # the last four characters of the API key


def _key_of(request: Request) -> str:
    given = request.headers.get("x-api-key") or request.headers.get("authorization", "")
    return given[-4:]


def _deliver(question: Question, dialect: Dialect, answer: Answer, rule: Rule | None) -> Response:
    if question.stream:
        body, media_type = "".join(dialect.stream(answer)).encode(), "text/event-stream"
    else:
        body, media_type = json.dumps(dialect.whole(answer)).encode(), "application/json"
    if rule is not None and rule.kind is Kind.WRONG_CONTENT_TYPE:
        media_type = "text/html"
    if rule is not None and rule.kind is Kind.CUT:
        return _CutResponse(body, media_type=media_type)
    if rule is not None and rule.kind is Kind.DRIP:
        return StreamingResponse(_dripping(body, rule.seconds), media_type=media_type)
    if question.stream:
        return StreamingResponse(dialect.stream(answer), media_type=media_type)
    return Response(body, media_type=media_type)


class _CutResponse(Response):
    """Sends half of the body it announced; the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


async def _dripping(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = max(1, len(body) // _DRIP_PIECES)
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(seconds / _DRIP_PIECES)


def _object(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise TypeError("the body must be a JSON object")
    return value


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARS_A_TOKEN)


class _Server(uvicorn.Server):
    """Leaves the process's signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(app: ASGIApp, *, port: int = 0) -> AsyncIterator[str]:
    """Serve the app on loopback while the context lasts; yields its base URL. Port 0 takes a free one."""
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        ws="none",
        date_header=False,
    )
    config.load()
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()
