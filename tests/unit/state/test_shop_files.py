"""An export is read whole, or refused with the place of the fault."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from state.shop_files import read_export
from tests.contract.samples import EXPORT

FILES = {"users.jsonl": EXPORT.customers, "orders.jsonl": EXPORT.orders, "products.jsonl": EXPORT.products}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The sample shop, exported."""
    for name, values in FILES.items():
        (tmp_path / name).write_text("\n".join(value.model_dump_json() for value in values) + "\n\n")
    (tmp_path / "policy.md").write_text(EXPORT.policy_markdown)
    return tmp_path


def change_line(path: Path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines))


def test_an_export_is_read_whole(directory: Path) -> None:
    assert read_export(directory) == EXPORT


def test_fields_we_do_not_know_are_ignored_at_every_depth(directory: Path) -> None:
    document = json.loads(EXPORT.orders[0].model_dump_json())
    document["gift_wrap"] = True
    document["items"][0]["weight_g"] = 12
    change_line(directory / "orders.jsonl", 1, json.dumps(document))
    assert read_export(directory) == EXPORT


def test_amounts_are_exact(directory: Path) -> None:
    assert read_export(directory).orders[1].items[0].price == Decimal("12.30")
    assert sum(item.price for item in read_export(directory).orders[0].items) == Decimal("12.30")


def test_a_byte_order_mark_and_windows_line_ends_are_read(directory: Path) -> None:
    for path in directory.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    export = read_export(directory)
    assert (export.customers, export.orders, export.products) == (EXPORT.customers, EXPORT.orders, EXPORT.products)


def test_an_unusual_line_separator_within_text_ends_no_line(directory: Path) -> None:
    document = json.loads(EXPORT.orders[0].model_dump_json())
    document["items"][0]["name"] = "Tea\u2028pot"
    change_line(directory / "orders.jsonl", 1, json.dumps(document, ensure_ascii=False))
    assert read_export(directory).orders[0].items[0].name == "Tea\u2028pot"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", "orders.jsonl line 2: the line: Invalid JSON"),
        ("[]", "orders.jsonl line 2: the line: "),
        ('{"order_id": "#W9", "user_id": "ada", "items": [], "status": "pending"}', "orders.jsonl line 2: address: "),
        (EXPORT.orders[1].model_dump_json().replace("12.3,", '"secret",', 1), r"line 2: items.0.price: "),
        (EXPORT.orders[1].model_dump_json().replace("pending", "\\u0000"), "orders.jsonl line 2: .*NUL"),
    ],
)
def test_a_broken_line_is_named_with_its_field_and_not_quoted(directory: Path, line: str, complaint: str) -> None:
    change_line(directory / "orders.jsonl", 2, line)
    with pytest.raises(Misconfigured, match=complaint) as caught:
        read_export(directory)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["users.jsonl", "orders.jsonl", "products.jsonl", "policy.md"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(Misconfigured, match=name):
        read_export(directory)


def test_a_file_that_is_not_text_is_named(directory: Path) -> None:
    (directory / "users.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(Misconfigured, match=r"users\.jsonl is not UTF-8"):
        read_export(directory)


def test_an_order_told_twice_is_refused(directory: Path) -> None:
    change_line(directory / "orders.jsonl", 3, EXPORT.orders[0].model_dump_json())
    with pytest.raises(Misconfigured, match=r"orders\.jsonl: entries 1 and 3 have the same id"):
        read_export(directory)


def test_one_address_of_two_customers_is_refused_in_any_case(directory: Path) -> None:
    twin = EXPORT.customers[1].model_copy(update={"email": "ADA.REED@EXAMPLE.COM"})
    change_line(directory / "users.jsonl", 2, twin.model_dump_json())
    with pytest.raises(Misconfigured, match=r"users.jsonl: entries 1 and 2 have the same email"):
        read_export(directory)
