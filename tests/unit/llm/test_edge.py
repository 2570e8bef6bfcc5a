"""What the adapters share at the provider's edge."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from contracts.errors import ModelOverloaded, ModelUnavailable
from llm.edge import failure, read_body, retry_after_s, unproxied
from tests.unit.llm.kit import Verdict


@pytest.mark.parametrize(
    ("said", "meant"),
    [("3", 3.0), ("0.5", 0.5), (" 20 ", 20.0), ("-4", 0.0), ("", None), ("soon", None), ("nan", None), ("inf", None)],
)
def test_retry_after_may_be_a_number(said: str, meant: float | None) -> None:
    assert retry_after_s({"retry-after": said}) == meant


def test_retry_after_may_be_a_date() -> None:
    said = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < (retry_after_s({"retry-after": said}) or 0) <= 90


def test_a_date_that_is_past_means_at_once() -> None:
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_no_header_asks_for_nothing() -> None:
    assert retry_after_s({}) is None


@pytest.mark.parametrize("body", ["", "<html>busy</html>", "[]", '{"error": "words"}', '{"error": {"type": 7}}'])
def test_an_error_body_of_any_shape_is_read(body: str) -> None:
    assert isinstance(failure("openai", 429, {}, body), ModelOverloaded)
    assert isinstance(failure("openai", 503, {}, body), ModelUnavailable)


def test_a_message_never_holds_the_providers_words() -> None:
    body = '{"error": {"type": "Your key sk-123 is wrong", "code": "invalid_api_key", "message": "sk-123"}}'
    assert str(failure("openai", 401, {}, body)) == "openai answered 401 invalid_api_key"


@pytest.mark.parametrize("body", ["", "<html>sign in, Ann</html>", "{}", "[1]", "null", '{"label": "Ann"}'])
def test_a_200_that_is_no_answer_is_unavailability_and_is_not_quoted(body: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        read_body("openai", body, Verdict)
    assert "Ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "mounts"),
    [
        ("http://127.0.0.1:8080/v1", ["all://127.0.0.1"]),
        ("http://localhost:8080", ["all://localhost"]),
        ("http://[::1]:8080", ["all://[::1]"]),
        ("https://api.example.com/v1", []),
        (None, []),
    ],
)
def test_only_a_server_on_this_machine_is_reached_past_a_proxy(url: str | None, mounts: list[str]) -> None:
    assert list(unproxied(url)) == mounts
