"""Each adapter against the stand-in on loopback: what it reads out of an answer, and what it makes of a fault."""

import asyncio
import json
import socket
import time
from dataclasses import replace

import pytest

from contracts.errors import Misconfigured, ModelOverloaded, ModelRefused, ModelUnavailable, SupportError, UsageUnknown
from llm import anthropic_provider, openai_provider
from llm.provider import Prompt, Provider, Repair
from llm.standin.faults import Kind, Rule
from tests.unit.llm.kit import CALL, FAST_MODEL, REQUEST, StandIn, open_provider

PROMPT = Prompt(REQUEST, CALL, timeout_s=5)


async def failure_of(provider: Provider, prompt: Prompt = PROMPT) -> SupportError:
    with pytest.raises(SupportError) as caught:
        await provider.complete(prompt)
    return caught.value


async def test_an_answer_comes_with_what_the_provider_accounted_for(
    provider: Provider, standin: StandIn, protocol: str
) -> None:
    completion = await provider.complete(PROMPT)

    (entry,) = standin.ledger.entries()
    assert json.loads(completion.text)["label"] == "complaint"
    assert completion.call_id == entry["id"]
    assert completion.model == entry["model"] == FAST_MODEL[protocol]
    assert (completion.input_tokens, completion.output_tokens) == (entry["input_tokens"], entry["output_tokens"])
    assert min(completion.input_tokens, completion.output_tokens) > 0
    assert entry["protocol"] == protocol


async def test_a_long_system_prompt_is_written_to_the_prompt_cache_once_and_then_read(provider: Provider) -> None:
    prompt = replace(PROMPT, request=replace(REQUEST, system="Choose a label, with care. " * 400))

    first, second = await provider.complete(prompt), await provider.complete(prompt)

    assert first.cache_read_tokens == 0
    assert second.cache_read_tokens > 1024
    assert first.input_tokens == second.input_tokens > second.cache_read_tokens


async def test_anthropic_tells_what_it_wrote_to_the_prompt_cache(standin: StandIn) -> None:
    prompt = replace(PROMPT, request=replace(REQUEST, system="Choose a label, with care. " * 400))
    async with open_provider("anthropic", standin.base_url) as provider:
        completion = await provider.complete(prompt)
    assert 1024 < completion.cache_write_tokens < completion.input_tokens


async def test_a_repair_shows_the_model_its_mistake(provider: Provider, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.EMPTY, text='{"label": "x"'), Rule(Kind.REFUSED)])
    repair = Repair(answer='{"label": "x"', complaint="confidence: Field required")

    assert (await provider.complete(replace(PROMPT, repair=repair))).text == ""

    standin.faults.replace([Rule(Kind.EMPTY, text="confidence: Field required"), Rule(Kind.REFUSED)])
    assert (await provider.complete(replace(PROMPT, repair=repair))).text == ""


async def test_the_repair_of_an_empty_answer_can_be_asked_for(provider: Provider) -> None:
    prompt = replace(PROMPT, repair=Repair(answer="", complaint="the answer is empty"))
    assert json.loads((await provider.complete(prompt)).text)["label"] == "complaint"


async def test_material_that_utf8_cannot_carry_is_sent_all_the_same(provider: Provider) -> None:
    prompt = replace(PROMPT, request=replace(REQUEST, content="broken \ud83d surrogate and \x00"))
    assert (await provider.complete(prompt)).text


# --- refusals and failures ---


async def test_429_is_overload_and_carries_what_retry_after_asks(provider: Provider, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.RATE_LIMITED, retry_after_s=7.5)])
    error = await failure_of(provider)
    assert isinstance(error, ModelOverloaded)
    assert error.retry_after_s == 7.5


async def test_529_is_overload(provider: Provider, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.OVERLOADED)])
    error = await failure_of(provider)
    assert isinstance(error, ModelOverloaded)
    assert error.retry_after_s is None


async def test_an_exhausted_quota_is_refusal_because_waiting_does_not_help(
    provider: Provider, standin: StandIn
) -> None:
    """It comes as a 429 like overload, which the SDKs try again; asked again, it is refused again."""
    standin.faults.replace([Rule(Kind.QUOTA_EXHAUSTED, retry_after_s=1)])
    assert isinstance(await failure_of(provider), ModelRefused)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_5xx_is_unavailability(provider: Provider, standin: StandIn, status: int) -> None:
    standin.faults.replace([Rule(Kind.REFUSED, status=status)])
    assert isinstance(await failure_of(provider), ModelUnavailable)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_4xx_is_refusal_and_its_message_names_the_status_only(
    provider: Provider, standin: StandIn, status: int
) -> None:
    standin.faults.replace([Rule(Kind.REFUSED, status=status)])
    error = await failure_of(provider)
    assert isinstance(error, ModelRefused)
    assert str(status) in str(error)
    assert "fault" not in str(error)  # the provider's own words
    assert error.__cause__ is not None


async def test_an_error_inside_a_200_is_an_error(provider: Provider, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.ERROR_IN_200)])
    assert isinstance(await failure_of(provider), ModelOverloaded)


async def test_a_cut_answer_is_unavailability(provider: Provider, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.CUT)])
    assert isinstance(await failure_of(provider), ModelUnavailable)


@pytest.mark.parametrize("kind", [Kind.SLOW, Kind.DRIP])
async def test_the_timeout_bounds_the_whole_call(provider: Provider, standin: StandIn, kind: Kind) -> None:
    """Both SDKs wait 600 s for each read by default, and a slow drip never ends."""
    standin.faults.replace([Rule(kind, seconds=1)])
    started_s = time.monotonic()
    error = await failure_of(provider, replace(PROMPT, timeout_s=0.3))
    assert isinstance(error, ModelUnavailable)
    assert time.monotonic() - started_s < 0.9


async def test_no_server_is_unavailability_that_nobody_paid_for(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with open_provider(protocol, f"http://127.0.0.1:{port}") as provider:
        error = await failure_of(provider)
    assert isinstance(error, ModelUnavailable)
    assert not isinstance(error, UsageUnknown)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", b"\x00\xff gibberish\r\n\r\n"]
)
async def test_a_connection_that_is_lost_after_the_request_may_have_been_paid_for(protocol: str, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, open_provider(protocol, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as provider:
        assert isinstance(await failure_of(provider), UsageUnknown)


async def test_a_request_bears_its_key(provider: Provider, standin: StandIn) -> None:
    await provider.complete(PROMPT)
    assert standin.ledger.entries()[0]["key"] == "-key"


async def test_a_failure_is_never_tried_again_by_the_sdk(provider: Provider, standin: StandIn) -> None:
    """Both SDKs try twice more by default; under an application's own tries that was 12 requests (nanobot#2511)."""
    for kind in (Kind.RATE_LIMITED, Kind.SERVER_ERROR, Kind.CUT):
        standin.faults.replace([Rule(kind)])
        await failure_of(provider)
    assert standin.calls() == 3


# --- answers that are odd but were paid for ---


BAD_TEXTS = {
    Kind.EMPTY: "",
    Kind.MALFORMED: '{"label": "complaint", "confidenc',
    Kind.OUT_OF_SET: '{"label": "none_of_these", "confidence": "none_of_these", "note": "none_of_these"}',
    Kind.HUGE: '{"padding": "' + "x" * 1_000_000 + '"}',
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
async def test_a_bad_answer_is_handed_on_as_it_is(provider: Provider, standin: StandIn, kind: Kind) -> None:
    standin.faults.replace([Rule(kind)])
    assert (await provider.complete(PROMPT)).text == BAD_TEXTS[kind]
    assert standin.paid_calls() == 1


async def test_an_answer_under_a_wrong_content_type_is_read(provider: Provider, standin: StandIn) -> None:
    standin.faults.replace([Rule(Kind.WRONG_CONTENT_TYPE)])
    assert json.loads((await provider.complete(PROMPT)).text)["confidence"] == 0.75


async def test_the_sdk_traces_nothing_itself_because_the_gateway_does() -> None:
    async with anthropic_provider.connect("any-key") as client:
        assert client.open_telemetry["traces"]["enabled"] is False
        assert client.open_telemetry["propagation"] is False


@pytest.mark.parametrize("module", [anthropic_provider, openai_provider])
def test_an_empty_key_is_found_before_the_first_call(module: object) -> None:
    with pytest.raises(Misconfigured):
        module.connect("")


async def test_a_proxy_of_the_environment_does_not_stand_before_a_local_server(
    protocol: str, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with open_provider(protocol, standin.base_url) as provider:
        assert (await provider.complete(PROMPT)).text
