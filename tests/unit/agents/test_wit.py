"""The stand-in's wit: it reads slips of the pen, fills the agents' schemas, and obeys nobody's letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.answers import ReasoningProposal, TriageVerdict
from llm.standin.wit import answer, label_of, language_of
from llm.standin.words import canonical


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cacneling", "cancel"),
        ("reufnd", "refund"),
        ("roder", "order"),
        ("purhase", "order"),
        ("adfress", "address"),
        ("shippingaddress", "address deliver"),
        ("falling beaches", "falling beaches"),
        ("W1234567", "ref"),
    ],
)
def test_key_words_are_read_through_one_slip(text: str, plain: str) -> None:
    assert set(canonical(text).split()) == set(plain.split())


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("where is my parcel", "order_status"),
        ("do you deliver to Norway", "shipping_info"),
        ("pls cancle order 1234567", "cancel_order"),
        ("I want my money back", "return_refund"),
        ("swap an item of my order", "change_order"),
        ("new delivery adress", "address_change"),
        ("send me the invoice", "payment_billing"),
        ("I forgot my password", "account"),
        ("I have a complaint", "complaint"),
        ("which warranty do you give", "product_question"),
        ("let me talk to a person", "human_agent"),
        ("will it rain in the mountains this weekend", "out_of_scope"),
    ],
)
def test_each_label_is_found_with_confidence(text: str, label: str) -> None:
    found, confidence = label_of(text)
    assert found == label
    assert confidence >= 0.5


def test_what_says_nothing_is_answered_with_doubt() -> None:
    assert label_of("hm")[1] < 0.5


def test_languages_are_told_apart_by_their_small_words() -> None:
    assert language_of("wo ist meine Bestellung") == "de"
    assert language_of("¿dónde está mi pedido?") == "es"
    assert language_of("où est ma commande") == "fr"
    assert language_of("12345") == "en"


@given(st.text(max_size=400))
def test_whatever_is_written_the_schemas_are_filled(text: str) -> None:
    TriageVerdict.model_validate(answer("TriageVerdict", "", f"<ticket>\n{text}\n</ticket>"))
    content = f'<policy>\n<passage id="p">\nReturns\n{text}\n</passage>\n</policy>\n<desk>account</desk>\n{text}'
    ReasoningProposal.model_validate(answer("ReasoningProposal", "", content))


def test_a_proposal_names_the_action_the_items_and_the_passage() -> None:
    order = '{"order_id": "#W1", "items": [{"name": "Wool Rug"}, {"name": "Lamp"}]}'
    policy = '<passage id="a">\nPayment\nPay by card.\n</passage>\n<passage id="b">\nReturns\nReturn it.\n</passage>'
    letter = "<ticket>\nreturn the wool rug to my gift card\n</ticket>"
    content = f"<policy>\n{policy}\n</policy>\n<order>{order}</order>\n<desk>return_refund</desk>\n{letter}"
    proposal = ReasoningProposal.model_validate(answer("ReasoningProposal", "", content))
    assert proposal.action == "return_delivered_order_items"
    assert proposal.items == ["Wool Rug"]
    assert proposal.refund_to == "gift_card"
    assert proposal.citations[0] == "b"


@pytest.mark.parametrize("street", ["12 Harbour Street", "7b St. Mary's Close"])
def test_an_address_is_read_in_its_parts(street: str) -> None:
    letter = f"<ticket>\norder #W1234567 goes to {street}, Apt 4, Burlington, VT 05401, USA\n</ticket>"
    parts = answer("ReasoningProposal", "", f"<desk>address_change</desk>\n{letter}")["new_address"]
    assert list(parts.values()) == [street, "Apt 4", "Burlington", "VT", "05401", "USA"]


def test_an_unknown_schema_is_refused() -> None:
    with pytest.raises(LookupError):
        answer("Poem", "", "")
