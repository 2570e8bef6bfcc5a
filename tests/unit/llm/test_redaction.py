"""What never leaves for a provider, and that it comes back only in its own ticket's answer."""

import json
from dataclasses import replace

import pytest

from llm.redaction import ALWAYS, BY_SETTING, Masks
from tests.unit.llm.kit import CALL, REQUEST
from tests.unit.llm.scripted_providers import Told, over

AWS_KEY = "AKIA" + "IOSFODNN7" + "EXAMPLE"
TOKEN = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("card 4111 1111 1111 1111, please", "card [CARD_1], please"),
        ("5555-5555-5555-4444 and 5555555555554444", "[CARD_1] and [CARD_2]"),
        ("amex 378282246310005.", "amex [CARD_1]."),
        ("IBAN DE89 3704 0044 0532 0130 00 thanks", "IBAN [IBAN_1] thanks"),
        ("to gb82west12345698765432", "to [IBAN_1]"),
        (f"key {AWS_KEY}", "key [SECRET_1]"),
        (f"token={TOKEN}", "token=[SECRET_1]"),
        ("my password is hunter2!x", "my password is [SECRET_1]"),
        ("Passwort: Geheim_123", "Passwort: [SECRET_1]"),
        ("postgres://ann:s3cret@db/x", "postgres://[SECRET_1]@db/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[SECRET_1]"),
        ("4111111111111111 again 4111111111111111", "[CARD_1] again [CARD_1]"),
    ],
)
def test_cards_ibans_and_secrets_are_masked(text: str, masked: str) -> None:
    assert Masks(ALWAYS).masked(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "order #W1234567 and tracking 843053137433",
        "card 4111 1111 1111 1112",  # no check digit
        "0000 0000 0000 0000",
        "item 1008292230, 9 pieces at 4111.50",
        "I forgot my password again",
        "the secret is out",
        "DE89 9704 0044 0532 0130 02",  # no check digits
        "credit_card_9513926",
        "mail ann@example.com or +1 555 010 9999",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert Masks(ALWAYS).masked(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ann.b+x@example.co.uk wrote", "[EMAIL_1] wrote"),
        ("call +49 30 901820 or (555) 010-9999", "call [PHONE_1] or [PHONE_2]"),
        ("order #W1234567 of 2026-03-01 10:20", "order #W1234567 of 2026-03-01 10:20"),
    ],
)
def test_mail_addresses_and_telephone_numbers_are_masked_where_that_is_set(text: str, masked: str) -> None:
    assert Masks({**ALWAYS, **BY_SETTING}).masked(text) == masked


async def test_a_provider_never_sees_it_and_the_answer_has_it_again() -> None:
    said = json.dumps({"label": "account", "confidence": 1, "note": "you sent [CARD_1] and [SECRET_1] and [CARD_9]"})
    provider = Told(said)
    content = 'card 4111111111111111, password: a"b\\c1234'
    answer = await over(provider).ask(replace(REQUEST, content=content), CALL)
    (prompt,) = provider.prompts
    assert prompt.request.content == 'card [CARD_1], password: a"b\\c1234' or "[SECRET_1]" in prompt.request.content
    assert "4111" not in str(prompt.turns())
    assert answer.value.note is not None
    assert answer.value.note.startswith("you sent 4111111111111111 and ")
    assert answer.value.note.endswith("[CARD_9]")  # nobody's


async def test_a_repair_masks_what_the_first_answer_quoted() -> None:
    provider = Told('{"label": "none", "note": "[CARD_1]"}', '{"label": "account", "confidence": 1}')
    await over(provider).ask(replace(REQUEST, content="card 4111111111111111"), CALL)
    assert len(provider.prompts) == 2
    assert "4111" not in str(provider.prompts[1].turns())
    assert "[CARD_1]" in str(provider.prompts[1].turns())


async def test_mail_addresses_leave_unless_set_otherwise() -> None:
    for masked, settings in ((False, {}), (True, {"mask_emails": True})):
        provider = Told()
        await over(provider, **settings).ask(replace(REQUEST, content="I am ann@example.com"), CALL)
        assert ("[EMAIL_1]" in provider.prompts[0].request.content) is masked
