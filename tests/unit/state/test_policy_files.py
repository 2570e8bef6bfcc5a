"""A directory becomes a policy, or is refused with the place of the fault."""

import json
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from state.policy_files import read_policy
from state.policy_text import passages_of


def test_markdown_and_documents_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Shipping\n\nIt takes two days.\n")
    rows = [{"id": "d1", "title": "Gift\ncards", "content": "## Expiry\n\nNever.", "lang": "en"}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/c.md").write_bytes("\ufeff# Shipping\r\n\r\nIt takes two days.\r\n\r\nOr three.\r\n".encode())
    (tmp_path / "notes.txt").write_text("not policy")
    assert [(p.heading, p.text) for p in read_policy(tmp_path)] == [
        ("Gift cards > Expiry", "Never."),
        ("Shipping", "It takes two days."),
        ("Shipping", "Or three."),
    ]


def test_one_markdown_file_is_the_policy_that_a_shops_export_brings(tmp_path: Path) -> None:
    text = "# Policy\n\nBe kind.\n\n## Returns\n\n- a\n- b\n"
    (tmp_path / "policy.md").write_text(text)
    assert read_policy(tmp_path) == passages_of(text)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "docs.jsonl line 1 is not JSON"),
        ('{"id": "a", "title": "t"}', "docs.jsonl line 1: content: "),
        ('{"id": "a", "title": "t", "content": "c"}\n' * 2, "docs.jsonl line 2: the id a is there twice"),
        ("\n", "hold no text"),
        ('{"id": "a", "title": "t", "content": "c\x00"}', "NUL"),
    ],
)
def test_a_broken_document_is_named_with_its_line(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "docs.jsonl").write_text(content)
    with pytest.raises(Misconfigured, match=complaint):
        read_policy(tmp_path)


def test_a_directory_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"put \.md files there"):
        read_policy(tmp_path)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match=r"policy\.md is not UTF-8"):
        read_policy(tmp_path)
