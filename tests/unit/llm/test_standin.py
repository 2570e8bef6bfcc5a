"""The stand-in seen from outside: what the official SDKs and a plain HTTP client find there."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from llm import anthropic_provider, openai_provider
from llm.provider import Prompt, Provider
from llm.standin.faults import Faults, Kind, Rule
from tests.unit.llm.kit import CALL, REQUEST, StandIn, Verdict

PROMPT = Prompt(REQUEST, CALL, timeout_s=5)
MESSAGES = [{"role": "user", "content": "My parcel is late"}]
ANTHROPIC_BODY = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "messages": MESSAGES,
    "output_config": {"format": {"type": "json_schema", "schema": PROMPT.schema}},
}
OPENAI_BODY = {
    "model": "gpt-4.1-mini",
    "messages": MESSAGES,
    "response_format": {"type": "json_schema", "json_schema": {"name": "Verdict", "schema": PROMPT.schema}},
}


@pytest.fixture
async def http(standin: StandIn) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=standin.base_url, trust_env=False) as http:
        yield http


async def test_the_anthropic_sdk_reads_its_stream(standin: StandIn) -> None:
    async with (
        anthropic_provider.connect("any", standin.base_url) as client,
        client.messages.stream(**ANTHROPIC_BODY) as stream,
    ):
        pieces = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    (entry,) = standin.ledger.entries()
    assert len(pieces) > 1
    assert Verdict.model_validate_json("".join(pieces)).label == "complaint"
    assert message.id == entry["id"]
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (entry["input_tokens"], entry["output_tokens"])


async def test_the_openai_sdk_reads_its_stream(standin: StandIn) -> None:
    async with openai_provider.connect("any", f"{standin.base_url}/v1") as client:
        stream = await client.chat.completions.create(**OPENAI_BODY, stream=True)
        chunks = [chunk async for chunk in stream]
    (entry,) = standin.ledger.entries()
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert Verdict.model_validate_json(text).label == "complaint"
    assert chunks[-1].usage.completion_tokens == entry["output_tokens"]
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_a_stream_can_be_cut(standin: StandIn, http: httpx2.AsyncClient) -> None:
    standin.faults.replace([Rule(Kind.CUT)])
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.post("/v1/messages", json={**ANTHROPIC_BODY, "stream": True})
    assert standin.paid_calls() == 1


async def test_the_sdks_parse_its_structured_output(standin: StandIn) -> None:
    async with openai_provider.connect("any", f"{standin.base_url}/v1") as openai:
        chat = await openai.chat.completions.parse(model="m", messages=MESSAGES, response_format=Verdict)
    async with anthropic_provider.connect("any", standin.base_url) as anthropic:
        message = await anthropic.messages.parse(
            model="m",
            max_tokens=100,
            messages=MESSAGES,
            output_format=Verdict,
        )
    assert chat.choices[0].message.parsed == message.parsed_output
    assert isinstance(message.parsed_output, Verdict)


async def test_both_sdks_list_its_models(standin: StandIn) -> None:
    async with openai_provider.connect("any", f"{standin.base_url}/v1") as openai:
        assert "gpt-4.1-mini" in [model.id async for model in openai.models.list()]
    async with anthropic_provider.connect("any", standin.base_url) as anthropic:
        assert "claude-haiku-4-5" in [model.id async for model in anthropic.models.list()]


async def test_the_same_request_costs_the_same_tokens(standin: StandIn, http: httpx2.AsyncClient) -> None:
    first, second = [(await http.post("/v1/messages", json=ANTHROPIC_BODY)).json() for _ in range(2)]
    assert first["usage"] == second["usage"]
    assert first["id"] != second["id"]


async def test_free_text_is_answered_without_a_schema(http: httpx2.AsyncClient) -> None:
    body = {"model": "m", "messages": MESSAGES}
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    assert "stand-in" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"model": "m", "max_tokens": 1, "messages": "hi"}',
        b'{"model": "m", "max_tokens": 1, "messages": []}',
        b'{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "system": 4,'
        b' "output_config": 4, "response_format": 4}',
    ],
)
async def test_a_request_it_does_not_understand_is_a_400_and_not_on_the_bill(
    standin: StandIn, http: httpx2.AsyncClient, path: str, body: bytes
) -> None:
    answer = await http.post(path, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert standin.calls() == 0


async def test_a_schema_the_wit_does_not_know_is_refused(standin: StandIn, http: httpx2.AsyncClient) -> None:
    body = {**OPENAI_BODY, "response_format": {"type": "json_schema", "json_schema": {"name": "Poem", "schema": {}}}}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "Poem" in answer.json()["error"]["message"]


# --- faults over HTTP ---


async def test_faults_are_set_over_http_and_count_down(http: httpx2.AsyncClient) -> None:
    rules = [{"kind": "rate_limited", "times": 2, "retry_after_s": 3}]
    assert (await http.post("/faults", json=rules)).status_code == 200

    answers = [await http.post("/v1/messages", json=ANTHROPIC_BODY) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert [rule["times"] for rule in (await http.get("/faults")).json()] == [0]


async def test_an_empty_list_lifts_all_faults(standin: StandIn, http: httpx2.AsyncClient) -> None:
    standin.faults.replace([Rule(Kind.SERVER_ERROR)])
    await http.post("/faults", json=[])
    assert (await http.post("/v1/messages", json=ANTHROPIC_BODY)).status_code == 200


@pytest.mark.parametrize("rules", [[{"kind": "meteor"}], [{}], [{"kind": "cut", "often": 1}], [7], 7, {"kind": "cut"}])
async def test_a_fault_it_does_not_know_is_refused_and_changes_nothing(
    standin: StandIn, http: httpx2.AsyncClient, rules: Any
) -> None:
    standin.faults.replace([Rule(Kind.SERVER_ERROR)])
    answer = await http.post("/faults", json=rules)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert standin.faults.rules == [Rule(Kind.SERVER_ERROR)]


def test_a_fault_strikes_only_the_model_and_the_words_it_names() -> None:
    faults = Faults()
    faults.replace([Rule(Kind.EMPTY, model="a"), Rule(Kind.CUT, text="parcel")])
    struck = [faults.strike("a", "hello"), faults.strike("b", "a parcel"), faults.strike("b", "hello")]
    assert [rule.kind if rule else None for rule in struck] == [Kind.EMPTY, Kind.CUT, None]


def test_a_share_of_faults_is_the_same_for_the_same_seed() -> None:
    def strikes(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.replace([Rule(Kind.EMPTY, share=0.3)])
        return [faults.strike("m", "") is not None for _ in range(1000)]

    assert strikes(7) == strikes(7) != strikes(8)
    assert 230 < sum(strikes(7)) < 370


# --- the ledger ---


PAID = frozenset(Kind) - {
    Kind.RATE_LIMITED,
    Kind.QUOTA_EXHAUSTED,
    Kind.SERVER_ERROR,
    Kind.OVERLOADED,
    Kind.REFUSED,
    Kind.ERROR_IN_200,
}


@pytest.mark.parametrize("kind", sorted(Kind))
async def test_only_what_was_answered_is_on_the_bill(standin: StandIn, http: httpx2.AsyncClient, kind: Kind) -> None:
    standin.faults.replace([Rule(kind, seconds=0.01)])
    try:
        await http.post("/v1/chat/completions", json=OPENAI_BODY)
    except httpx2.RemoteProtocolError:
        assert kind is Kind.CUT
    (entry,) = standin.ledger.entries()
    assert entry["paid"] is (kind in PAID)
    assert (entry["input_tokens"] > 0) is (kind in PAID)
    assert standin.paid_calls() == (kind in PAID)


async def test_the_ledger_tells_repeated_purchases_and_the_marked_ticket(
    standin: StandIn, http: httpx2.AsyncClient, provider: Provider
) -> None:
    marked = replace(PROMPT, request=replace(REQUEST, content="late [ticket:T-17] parcel"))
    for prompt in (PROMPT, PROMPT, marked):
        await provider.complete(prompt)

    summary = (await http.get("/ledger/summary")).json()
    entries = [json.loads(line) for line in (await http.get("/ledger")).text.splitlines()]

    assert (summary["calls"], summary["paid_calls"]) == (3, 3)
    assert (summary["distinct_paid_requests"], summary["repeated_paid_calls"]) == (2, 1)
    assert sum(entry["input_tokens"] for entry in entries) == summary["input_tokens"]
    assert [entry["ticket"] for entry in entries] == [None, None, "T-17"]


async def test_five_hundred_requests_wait_side_by_side(standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.SLOW, seconds=1)])
    started_s = time.monotonic()
    statuses = await asyncio.gather(*(bare_post(standin.base_url, ANTHROPIC_BODY) for _ in range(500)))
    assert set(statuses) == {b"HTTP/1.1 200 OK"}
    assert standin.paid_calls() == 500
    assert time.monotonic() - started_s < 60  # one after the other they would take 500 s


async def bare_post(base_url: str, body: dict[str, Any]) -> bytes:
    """Post without a client library, whose own pool would be what is measured; returns the status line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(base_url).port)
    content = json.dumps(body).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    answer = await reader.read()
    writer.close()
    return answer.split(b"\r\n")[0]
