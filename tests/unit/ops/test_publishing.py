from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from ops.publishing import read_tickets


def test_tickets_are_read_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b'{"ticket_id":"a","body":"x","more":1}\n\n{"ticket_id":"b","body":"y"}\n')
    assert read_tickets(file) == [
        ("a", b'{"ticket_id":"a","body":"x","more":1}'),
        ("b", b'{"ticket_id":"b","body":"y"}'),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [(b'{"ticket_id":"a"}', "line 2: body"), (b"{", "line 2: the line"), (b"[]", "line 2"), (b"\xff", "line 2")],
)
def test_a_wrong_line_is_named_and_nothing_is_published(tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b'{"ticket_id":"a","body":"x"}\n' + line + b"\n")
    with pytest.raises(Misconfigured, match=said):
        read_tickets(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none\.jsonl cannot be read"):
        read_tickets(tmp_path / "none.jsonl")
