"""Gold actions of retail tasks: read from JSONL, and turned into the proposals that they come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts.errors import Misconfigured
from contracts.shop import ActionKind, Address, Customer, Order, Product
from contracts.ticket import Proposal

_GIFT_CARD = "gift_card"
_NO_ACTIONS = frozenset({"transfer_to_human_agents"})  # a task's way to say that a person has it


@dataclass(frozen=True)
class GoldAction:
    """One action that a task's right solution carries out, in its place among them."""

    id: str  # the task's id and the action's place
    user_id: str
    action: ActionKind
    arguments: Mapping[str, Any]

    @property
    def order_id(self) -> str:
        """The order it is about; "" when it is about none."""
        return str(self.arguments.get("order_id", ""))

    def proposal(self, asked_of: str) -> Proposal:
        """What we would have asked this customer to confirm."""
        given = self.arguments
        address = {name: given[name] for name in Address.model_fields if name in given}
        return Proposal(
            action=self.action,
            order_id=self.order_id,
            asked_in_round=1,
            asked_of=asked_of,
            reason=given.get("reason"),
            item_ids=tuple(given.get("item_ids", ())),
            new_item_ids=tuple(given.get("new_item_ids", ())),
            payment_method_id=given.get("payment_method_id"),
            address=Address.model_validate(address) if address else None,
        )


def read_tasks(data: Path) -> list[list[GoldAction]]:
    """The gold actions of every task that has some, in order. `data`: a JSONL file, or a directory of them.

    Raises Misconfigured, naming file and line: there is none, or one is not in the format.
    """
    files = sorted(data.glob("*.jsonl")) if data.is_dir() else [data]
    if not files:
        raise Misconfigured(f"{data} holds no .jsonl file")
    return [task for file in files for task in _tasks(file) if task]


def _tasks(file: Path) -> Iterable[list[GoldAction]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield _actions(json.loads(line)) if line.strip() else []
        except (KeyError, TypeError, ValueError) as error:
            raise Misconfigured(f"{file.name} line {number} is no retail task: {error!r}") from error


def _actions(task: Mapping[str, Any]) -> list[GoldAction]:
    writes = [write for write in task["gold_write_actions"] if write["name"] not in _NO_ACTIONS]
    return [
        GoldAction(
            id=f"{task['id']}/{place}",
            user_id=task["user_id"] or write["arguments"]["user_id"],
            action=ActionKind(write["name"]),
            arguments=write["arguments"],
        )
        for place, write in enumerate(writes, start=1)
    ]


def flaw(gold: GoldAction, order: Order | None, customer: Customer, products: Mapping[str, Product]) -> str | None:
    """What makes a gold action break the policy's plain words on the rows as they are; judged without the guard."""
    if order is None:
        return None
    wanted = "delivered" if "delivered" in gold.action else "pending"
    if order.status != wanted:
        return f"the order is {order.status}"
    cost = _cost(gold, order, products)
    if cost is None:
        return "an item is not in the order, or a new one not of its products"
    method = customer.payment_methods.get(gold.arguments.get("payment_method_id", ""))
    if method and method.source == _GIFT_CARD and (method.balance or 0) < cost:
        return f"the gift card holds ${method.balance}, and ${cost} is to be paid"
    return None


def _cost(gold: GoldAction, order: Order, products: Mapping[str, Product]) -> Decimal | None:
    """What the customer pays, below 0 what comes back; None: an item is not known."""
    if gold.action is ActionKind.MODIFY_PENDING_ORDER_PAYMENT:
        return order.payment_history[0].amount
    prices = {item.item_id: item.price for item in order.items}
    variants = {key: variant for product in products.values() for key, variant in product.variants.items()}
    old, new = gold.arguments.get("item_ids", ()), gold.arguments.get("new_item_ids", ())
    if not prices.keys() >= set(old) or not variants.keys() >= set(new):
        return None
    return sum((variants[key].price for key in new), Decimal(0)) - sum((prices[key] for key in old), Decimal(0))
