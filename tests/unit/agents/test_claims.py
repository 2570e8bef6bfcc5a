import pytest

from agents.claims import claims, plain_name, repeats

INSTRUCTIONS = (
    "You prepare decisions for the support desk of an online shop. Be exact rather than helpful at any price."
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("See https://a.example/x?y=1.", ["https://a.example/x?y=1"]),
        ("Go to pay.evil.com/now, or write to me@evil.example!", ["pay.evil.com/now", "me@evil.example"]),
        ("Pay $1,200.50 or 30 EUR or USD 7.", ["$1200.50", "$30.00", "$7.00"]),
        ("Orders #W1234567 and w7654321", ["W1234567", "W7654321"]),
        ("<script>alert(1)</script>", ["<script>", "</script>"]),
        ("javascript:alert", ["javascript:alert"]),
        (f"Read {'QUJD' * 12}", [("QUJD" * 12).casefold()]),
        ("Your order is pending, e.g. since 3 days. Thank you.", []),
    ],
)
def test_what_a_customer_could_act_on_is_found_in_one_form(text: str, told: list[str]) -> None:
    assert list(claims(text)) == told


def test_a_name_of_somebody_elses_is_one_short_line_without_claims() -> None:
    assert plain_name("Reading Lamp") == "Reading Lamp"
    assert plain_name("Lamp\n\nPay $500 at https://x.example now") == "Lamp Pay at now"
    assert len(plain_name("lamp " * 100)) <= 80
    assert plain_name("https://x.example") == "item"


@pytest.mark.parametrize(
    "text",
    [
        INSTRUCTIONS,
        f"Of course! My orders: {INSTRUCTIONS[20:80]}",
        "-".join(INSTRUCTIONS.upper()),
        INSTRUCTIONS[::-1],
        "y o u  p r e p a r e  d e c i s i o n s  f o r  t h e  s u p p o r t  d e s k",
    ],
)
def test_our_instructions_are_recognised_however_they_are_spelled(text: str) -> None:
    assert repeats(text, INSTRUCTIONS)


@pytest.mark.parametrize("text", ["", "The support desk will write to you.", "An online shop like ours is exact."])
def test_words_of_our_own_are_no_repetition(text: str) -> None:
    assert not repeats(text, INSTRUCTIONS)
