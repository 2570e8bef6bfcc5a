"""Documents keep what they are given, or say that they cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ContractBroken
from contracts.shop import Passage
from state.documents import from_json, to_json

kept_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


@given(kept_text | st.sampled_from(["\\u0000", "\\\\u0000", "u0000"]))
def test_reading_undoes_writing(text: str) -> None:
    passage = Passage(id="p", heading="", text=text)
    assert from_json(Passage, to_json(passage)) == passage


@given(kept_text, kept_text, st.sampled_from(["\x00", "\ud800"]))
def test_what_no_column_holds_is_refused(before: str, after: str, bad: str) -> None:
    with pytest.raises(ContractBroken):
        to_json(Passage(id="p", heading="", text=before + bad + after))


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert from_json(Passage, '{"id": "p", "heading": "", "text": "t", "later": {"x": 1}}').text == "t"
