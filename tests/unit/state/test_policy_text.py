"""Policies become passages, and no sentence is lost or changed."""

from hypothesis import given
from hypothesis import strategies as st

from state.policy_text import MAX_PASSAGE_CHARS, passages_of

POLICY = """\
Before any heading.

# Shop policy

Be kind.
Always.

## Orders

An order has:

- an id
- a status

It can be **pending**.

### Changing one ###

Ask first.

Ask first.

## Returns

```
# not a heading
```

Ask first.
"""


def test_each_paragraph_stands_under_its_headings() -> None:
    assert [(passage.heading, passage.text) for passage in passages_of(POLICY)] == [
        ("", "Before any heading."),
        ("Shop policy", "Be kind.\nAlways."),
        ("Shop policy > Orders", "An order has:\n\n- an id\n- a status"),
        ("Shop policy > Orders", "It can be **pending**."),
        ("Shop policy > Orders > Changing one", "Ask first."),
        ("Shop policy > Returns", "```\n# not a heading\n```"),
        ("Shop policy > Returns", "Ask first."),
    ]


def test_an_id_tells_the_section_and_changes_with_the_text_alone() -> None:
    before = {passage.text: passage.id for passage in passages_of(POLICY)}
    after = {passage.text: passage.id for passage in passages_of(POLICY.replace("Be kind.", "Be very kind."))}
    assert before["It can be **pending**."].startswith("orders-")
    assert {text: id_ for text, id_ in after.items() if text in before} == {
        text: id_ for text, id_ in before.items() if text in after
    }
    assert len(set(before.values()) ^ set(after.values())) == 2


def test_an_empty_policy_has_no_passages() -> None:
    assert passages_of("") == passages_of("\n# Title\n\n## More\n") == ()


def test_line_ends_and_a_byte_order_mark_make_no_difference() -> None:
    assert passages_of("\ufeff" + POLICY.replace("\n", "\r\n")) == passages_of(POLICY)


sentences = st.from_regex(r"[A-Za-z*'][^\r\n#`~]{0,40}[a-z.!?]", fullmatch=True).filter(str.isprintable)
headings = st.sampled_from(["# Policy", "## Returns", "### Gift cards"])


@given(st.lists(sentences | headings, max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_every_sentence_stays_verbatim(blocks: list[str], line_end: str) -> None:
    texts = [passage.text for passage in passages_of((line_end * 2).join(blocks))]
    for block in blocks:
        assert block.startswith("#") or any(block in text for text in texts)


def test_a_long_paragraph_is_cut_at_the_ends_of_lines_or_sentences() -> None:
    items = "\n".join(f"- Kind {n} of parcel travels for {n} days." for n in range(100))
    prose = " ".join(f"Sentence number {n} says little." for n in range(100))
    texts = [passage.text for passage in passages_of(f"# Long\n\nThe kinds are:\n\n{items}\n\n{prose}\n")]
    assert all(len(text) <= MAX_PASSAGE_CHARS and text.endswith(".") for text in texts)
    assert "\n".join(texts[: len(texts) // 2]).startswith("The kinds are:\n\n- Kind 0 ")
    assert " ".join("\n".join(texts).split()) == " ".join(f"The kinds are: {items} {prose}".split())


@given(st.text(alphabet="ab. \n", max_size=4_000), st.integers(0, 3_000))
def test_no_passage_is_longer_than_its_bound_and_no_word_is_lost(text: str, unbroken: int) -> None:
    passages = passages_of(f"# H\n\n{'x' * unbroken}\n\n{text}")
    assert all(0 < len(passage.text) <= MAX_PASSAGE_CHARS for passage in passages)
    assert len({passage.text for passage in passages}) == len(passages)
