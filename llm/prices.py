"""What a provider call costs, from genai-prices' bundled table: no network, no silent zero."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from typing import NamedTuple

from genai_prices import Usage, calc_price

from contracts.errors import Misconfigured
from llm.provider import Completion

_MILLION = Decimal(1_000_000)
_SIZES = (1_000, 1_000_000)  # of prompts: some models take more for a token of a long one


@dataclass(frozen=True, slots=True)
class Price:
    """A price set by hand, in USD per million tokens; cached input costs the same as other input."""

    input_usd: Decimal
    output_usd: Decimal


class _Rates(NamedTuple):
    """USD a token."""

    input: Decimal
    read: Decimal  # from the provider's prompt cache
    written: Decimal  # to it
    output: Decimal


_RELEASED = {"0.2.3": "2026-11-10"}  # the list does not say itself from when it is


def prices_of() -> str:
    """Where prices come from: the list, its version and date. It is bundled, and never fetched."""
    version = metadata.version("genai-prices")
    return f"genai-prices {version} of {_RELEASED.get(version, 'an unknown date')}"


class Prices:
    """Prices by provider and model; what is set by hand goes before the table."""

    def __init__(self, overrides: Mapping[tuple[str, str], Price] | None = None) -> None:
        self._overrides = dict(overrides or {})
        self._dearest: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
        self._rates: dict[tuple[str, str, int], tuple[int, _Rates | None]] = {}

    def check(self, provider: str, model: str) -> None:
        """Raises Misconfigured: the model has no price, or one of zero that nobody set by hand."""
        if (provider, model) in self._overrides:
            return
        try:
            price = calc_price(Usage(input_tokens=1000, output_tokens=1000), model, provider_id=provider)
        except LookupError as error:
            raise Misconfigured(f"model {model} of {provider} has no known price: set one") from error
        if not (price.input_price > 0 and price.output_price > 0):
            raise Misconfigured(f"model {model} of {provider} has no known price: set one")

    def cost_usd(self, provider: str, model: str, used: Completion) -> Decimal:
        """The price of one call. Check the model first: an unknown one raises LookupError."""
        price = self._overrides.get((provider, model))
        if price is not None:
            return (used.input_tokens * price.input_usd + used.output_tokens * price.output_usd) / _MILLION
        rates = self._rates_at(provider, model, used.input_tokens)
        if rates is None:
            return _listed_usd(provider, model, used)
        reads, writes = _cached(used)
        tokens = (used.input_tokens - reads - writes, reads, writes, used.output_tokens)
        return sum((rate * count for rate, count in zip(rates, tokens, strict=True)), Decimal(0))

    def _rates_at(self, provider: str, model: str, input_tokens: int) -> _Rates | None:
        """The rates for prompts of this size, within a factor of two; None: they are not the same for all of these.

        To ask the table takes longer than to write the call down. It is asked again each minute: some prices change
        with the time.
        """
        if not input_tokens:
            return None
        bits, minute = input_tokens.bit_length(), int(time.time()) // 60
        asked_at, rates = self._rates.get((provider, model, bits), (0, None))
        if asked_at != minute:
            ends = {_listed_rates(provider, model, size) for size in (1 << bits - 1, (1 << bits) - 1)}
            rates = ends.pop() if len(ends) == 1 else None
            self._rates[provider, model, bits] = (minute, rates)
        return rates

    def most_usd(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> Decimal:
        """The most that a call of this size can cost, long prompts and what is written to a cache included.

        From rates that are looked up once: to ask the table for each call takes longer than the rest of a hold.
        """
        if (provider, model) not in self._dearest:
            self._dearest[provider, model] = self._dearest_rates(provider, model)
        input_usd, output_usd = self._dearest[provider, model]
        return input_tokens * input_usd + output_tokens * output_usd

    def _dearest_rates(self, provider: str, model: str) -> tuple[Decimal, Decimal]:
        """USD a token of input and of output, at the size and in the way that is dearest."""
        ways = [
            (
                self._cost_of(provider, model, size, 0) / size,
                self._cost_of(provider, model, size, 0, written=size) / size,
                (self._cost_of(provider, model, size, size) - self._cost_of(provider, model, size, 0)) / size,
            )
            for size in _SIZES
        ]
        return max(max(plain, written) for plain, written, _ in ways), max(output for _, _, output in ways)

    def _cost_of(self, provider: str, model: str, input_tokens: int, output_tokens: int, written: int = 0) -> Decimal:
        used = Completion("", "", model, input_tokens, output_tokens, cache_write_tokens=written)
        return self.cost_usd(provider, model, used)


def _listed_rates(provider: str, model: str, size: int) -> _Rates:
    """What the table takes for a token where the prompt has `size` of them."""

    def listed_usd(output_tokens: int = 0, read: int = 0, written: int = 0) -> Decimal:
        return _listed_usd(provider, model, Completion("", "", model, size, output_tokens, read, written))

    plain_usd = listed_usd()
    return _Rates(
        plain_usd / size,
        listed_usd(read=size) / size,
        listed_usd(written=size) / size,
        (listed_usd(size) - plain_usd) / size,
    )


def _listed_usd(provider: str, model: str, used: Completion) -> Decimal:
    reads, writes = _cached(used)
    usage = Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=reads,
        cache_write_tokens=writes,
    )
    return calc_price(usage, model, provider_id=provider).total_price


def _cached(used: Completion) -> tuple[int, int]:
    """Tokens read from and written to the prompt cache.

    The table refuses parts larger than their whole; a provider that says so is billed for the whole.
    """
    reads = min(used.cache_read_tokens, used.input_tokens)
    return reads, min(used.cache_write_tokens, used.input_tokens - reads)
