"""A shop's export on disk, and putting it into the database."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import asyncpg
from pydantic import ValidationError

from contracts.errors import ContractBroken, Misconfigured
from contracts.shop import Customer, Order, Passage, Product
from contracts.values import Value
from state.documents import from_json, to_json
from state.policies import put_in_force
from state.policy_text import passages_of
from state.pool import borrowed
from state.shop_rules import email_key

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_log = logging.getLogger(__name__)

ValueT = TypeVar("ValueT", bound=Value)
_Rows = Mapping[str, tuple[Sequence[str], Sequence[tuple[object, ...]]]]  # by table: columns and records


@dataclass(frozen=True, slots=True)
class ShopExport:
    """All that is known of a shop."""

    customers: tuple[Customer, ...] = ()
    orders: tuple[Order, ...] = ()
    products: tuple[Product, ...] = ()
    policy_markdown: str = ""


def read_export(directory: Path) -> ShopExport:
    """Read users.jsonl, orders.jsonl, products.jsonl and policy.md; fields we do not know are ignored.

    Raises Misconfigured, naming file, line and field: something is missing, broken or there twice.
    """
    users = directory / "users.jsonl"
    export = ShopExport(
        customers=_read(users, Customer, lambda customer: customer.user_id),
        orders=_read(directory / "orders.jsonl", Order, lambda order: order.order_id),
        products=_read(directory / "products.jsonl", Product, lambda product: product.product_id),
        policy_markdown=_text(directory / "policy.md"),
    )
    _refuse_twins(users, [email_key(customer.email) for customer in export.customers], "email")
    return export


async def load_shop(pool: asyncpg.Pool, shop_id: str, export: ShopExport) -> dict[str, int]:
    """Replace a shop's rows by an export, all at once; returns how many of each there are now.

    A policy that differs from the one in force is a new version of it (`state.policies`).

    Raises ContractBroken: two rows have one id, or two customers one e-mail address; the shop is as it was then.
    """
    rows, passages = _rows(shop_id, export), passages_of(export.policy_markdown)
    async with borrowed(pool) as connection:
        try:
            async with connection.transaction():
                await _replace(connection, shop_id, passages, rows)
        except asyncpg.UniqueViolationError as error:
            raise ContractBroken(f"the export holds a row twice: {error.constraint_name}") from error
    counts = {table.removeprefix("shop_"): len(records) for table, (_, records) in rows.items()}
    counts["passages"] = len(passages)
    _log.info("shop loaded", extra={"shop_id": shop_id, **counts})
    return counts


async def _replace(
    connection: "PoolConnectionProxy[asyncpg.Record]", shop_id: str, passages: Sequence[Passage], rows: _Rows
) -> None:
    # The shop's own row is held until the end, so a second loader waits.
    await connection.execute(
        "INSERT INTO shops (shop_id) VALUES ($1) ON CONFLICT (shop_id) DO UPDATE SET loaded_at = now()", shop_id
    )
    await put_in_force(connection, shop_id, passages)
    for table, (columns, records) in rows.items():
        await connection.execute(f"DELETE FROM {table} WHERE shop_id = $1", shop_id)
        await connection.copy_records_to_table(table, records=records, columns=columns)


def _rows(shop_id: str, export: ShopExport) -> _Rows:
    # Orders before customers, the order in which an effect locks them: the two cannot deadlock.
    return {
        "shop_orders": (
            ("shop_id", "order_id", "user_id", "status", "document"),
            [(shop_id, o.order_id, o.user_id, o.status, to_json(o)) for o in export.orders],
        ),
        "shop_customers": (
            ("shop_id", "user_id", "email_key", "document"),
            [(shop_id, c.user_id, email_key(c.email), to_json(c)) for c in export.customers],
        ),
        "shop_products": (
            ("shop_id", "product_id", "document"),
            [(shop_id, p.product_id, to_json(p)) for p in export.products],
        ),
    }


def _read(path: Path, model: type[ValueT], key: Callable[[ValueT], str]) -> tuple[ValueT, ...]:
    values = tuple(_lines(path, model))
    _refuse_twins(path, [key(value) for value in values], "id")
    return values


def _lines(path: Path, model: type[ValueT]) -> Iterator[ValueT]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = from_json(model, line)
            to_json(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the line"
            raise Misconfigured(f"{path.name} line {number}: {field}: {first['msg']}") from None
        except ContractBroken as error:
            raise Misconfigured(f"{path.name} line {number}: {error}") from error
        yield value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path.name} is not UTF-8: byte {error.start}") from error


def _refuse_twins(path: Path, keys: Sequence[str], field: str) -> None:
    """Two rows of one key are a broken export. The n-th key is not always on line n, so both are counted."""
    seen: dict[str, int] = {}
    for number, key in enumerate(keys, start=1):
        if key in seen:
            raise Misconfigured(f"{path.name}: entries {seen[key]} and {number} have the same {field}")
        seen[key] = number
