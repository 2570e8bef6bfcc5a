"""Prices come from a kept table or from a hand, never from a default."""

from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Misconfigured
from llm.prices import Price, Prices
from llm.provider import Completion


@pytest.mark.parametrize(
    ("provider", "model", "input_usd", "output_usd"),
    [
        ("anthropic", "claude-sonnet-4-5", "3", "15"),
        ("anthropic", "claude-haiku-4-5", "1", "5"),
        ("openai", "gpt-5-mini", "0.25", "2"),
        ("openai", "gpt-4.1-mini", "0.4", "1.6"),
        ("anthropic", "claude-sonnet-5", "2", "10"),
        ("openai", "gpt-5.4-mini", "0.75", "4.5"),
    ],
)
def test_the_models_we_name_are_priced(provider: str, model: str, input_usd: str, output_usd: str) -> None:
    Prices().check(provider, model)
    used = Completion("", "c1", model, input_tokens=1000, output_tokens=1000)
    assert Prices().cost_usd(provider, model, used) == (Decimal(input_usd) + Decimal(output_usd)) / 1000


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-of-tomorrow"), ("nobody", "gpt-5-mini")])
def test_what_has_no_price_is_named(provider: str, model: str) -> None:
    with pytest.raises(Misconfigured, match=model):
        Prices().check(provider, model)


def test_a_price_set_by_hand_makes_any_model_known() -> None:
    Prices({("own", "tiny"): Price(Decimal(0), Decimal(0))}).check("own", "tiny")


def test_more_cached_tokens_than_tokens_do_not_stop_the_accounting() -> None:
    used = Completion("", "c1", "gpt-5-mini", 100, 10, cache_read_tokens=900, cache_write_tokens=50)
    assert Prices().cost_usd("openai", "gpt-5-mini", used) > 0


@pytest.mark.parametrize("model", ["anthropic:claude-haiku-4-5", "anthropic:claude-sonnet-5", "openai:gpt-5.4-mini"])
@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(1, 1), (900, 300), (250_000, 4_000)])
def test_no_call_costs_more_than_is_held_for_it(model: str, input_tokens: int, output_tokens: int) -> None:
    provider, _, name = model.partition(":")
    most = Prices().most_usd(provider, name, input_tokens, output_tokens)
    for written in (0, input_tokens):
        used = Completion("", "", name, input_tokens, output_tokens, cache_write_tokens=written)
        assert 0 < Prices().cost_usd(provider, name, used) <= most


_PRICES = Prices()
_TOKENS = st.one_of(st.integers(0, 5_000), st.sampled_from([127_999, 128_000, 128_001, 200_000, 200_001, 272_001]))


@given(
    st.sampled_from(
        ["anthropic:claude-haiku-4-5", "anthropic:claude-sonnet-4-5", "openai:gpt-5.4-mini", "openai:gpt-5.4"]
    ),
    _TOKENS,
    _TOKENS,
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_a_call_costs_what_the_table_says_to_the_last_digit(
    model: str, input_tokens: int, output_tokens: int, read_percent: int, written_percent: int
) -> None:
    provider, _, name = model.partition(":")
    reads = input_tokens * read_percent // 100
    writes = (input_tokens - reads) * written_percent // 100
    usage = Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=reads, cache_write_tokens=writes
    )
    listed = calc_price(usage, name, provider_id=provider)
    used = Completion("", "", name, input_tokens, output_tokens, reads, writes)
    assert _PRICES.cost_usd(provider, name, used) == listed.total_price


def test_prices_are_looked_up_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now_s = [], [1000.0]
    monkeypatch.setattr("llm.prices.time.time", lambda: now_s[0])
    monkeypatch.setattr(
        "llm.prices.calc_price", lambda *args, **named: asked.append(args) or calc_price(*args, **named)
    )
    prices, used = Prices(), Completion("", "", "gpt-5.4-mini", 100, 10)
    for _ in range(3):
        prices.cost_usd("openai", "gpt-5.4-mini", used)
    at_first = len(asked)
    now_s[0] += 60
    prices.cost_usd("openai", "gpt-5.4-mini", used)
    assert len(asked) == 2 * at_first
