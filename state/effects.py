"""Effects: the world is changed once per effect key, in the same write that notes the key."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg

from contracts.errors import ContractBroken
from contracts.events import (
    CancelOrder,
    ChangeAddress,
    ChangeDefaultAddress,
    ChangePayment,
    Command,
    ExchangeItems,
    ModifyItems,
    ReturnItems,
    SendReply,
    ShopCommand,
)
from contracts.ports import EffectResult, TimelineEntry
from contracts.shop import Customer, Order, Product
from state import timeline
from state.documents import from_json, to_json
from state.found import KEEP_FOUND, Found
from state.pool import borrowed
from state.shop import MemoryShop, ShopOf
from state.shop_rules import NO_PRODUCTS, Change, Products, change_for, product_ids_of

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

KIND_OF_COMMAND: dict[type[Command], str] = {
    CancelOrder: "cancel_order",
    ReturnItems: "return_items",
    ExchangeItems: "exchange_items",
    ModifyItems: "modify_items",
    ChangePayment: "change_payment",
    ChangeAddress: "change_address",
    ChangeDefaultAddress: "change_default_address",
    SendReply: "send_reply",
}
_log = logging.getLogger(__name__)
_SENT = EffectResult(order=None, amount=Decimal(0))

_LOCK_ORDER = "SELECT document FROM shop_orders WHERE shop_id = $1 AND order_id = $2 FOR UPDATE"
_LOCK_CUSTOMER = "SELECT document FROM shop_customers WHERE shop_id = $1 AND user_id = $2 FOR UPDATE"
# A product that is loaded anew meanwhile is waited for, and one that is read here stays until the order is stored.
_LOCK_PRODUCTS = "SELECT document FROM shop_products WHERE shop_id = $1 AND product_id = ANY($2) FOR SHARE"
_STORE_ORDER = "UPDATE shop_orders SET status = $3, document = $4 WHERE shop_id = $1 AND order_id = $2"
_STORE_CUSTOMER = "UPDATE shop_customers SET document = $3 WHERE shop_id = $1 AND user_id = $2"
_FIND = "SELECT kind, user_id, command, order_then, amount FROM effects WHERE effect_key = $1"
_NOTE = """
INSERT INTO effects (effect_key, kind, ticket_id, tenant_id, user_id, order_id, command, order_then, amount)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (effect_key) DO NOTHING
RETURNING effect_key
"""


@dataclass(frozen=True, slots=True)
class Effect:
    """A command that was carried out."""

    kind: str
    user_id: str | None
    command: str  # JSON
    result: EffectResult


class PostgresEffects:
    """EffectsPort on a migrated database."""

    def __init__(self, pool: asyncpg.Pool, shop_of: ShopOf) -> None:
        self._pool = pool
        self._shop_of = shop_of

    async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
        """Change one of the customer's own orders, or their account, once per key; see the port.

        Raises ContractBroken: the key was used for another command.
        """
        async with borrowed(self._pool) as connection, connection.transaction():
            return await self._apply(connection, command, user_id)

    async def send(self, command: SendReply) -> EffectResult:
        """Note the reply, once per key: the effects table is the outlet. Raises as `apply` does."""
        effect = Effect(KIND_OF_COMMAND[SendReply], None, to_json(command), _SENT)
        async with borrowed(self._pool) as connection:
            noted = await note_effect(connection, command, effect)
            earlier = None if noted else await find_effect(connection, command)
        return result_again(earlier, command, None) if earlier else _SENT

    async def _apply(self, connection: "Connection", command: ShopCommand, user_id: str) -> EffectResult:
        shop_id = self._shop_of(command.tenant_id)
        # The rows come first: whoever carries out the same command waits here, and then finds the key.
        order_id = _order_id(command)
        order = await _locked_order(connection, shop_id, order_id) if order_id else None
        customer = await connection.fetchval(_LOCK_CUSTOMER, shop_id, user_id)
        earlier = await find_effect(connection, command)
        if earlier is not None:
            return result_again(earlier, command, user_id)
        products = await _products(connection, shop_id, command, order)
        change = change_for(command, order, customer and from_json(Customer, customer), products)
        effect = effect_of(command, user_id, change)
        if not await note_effect(connection, command, effect):
            raise _key_reused(command)  # for another order, at the same moment
        await connection.execute(KEEP_FOUND, *Found(to_json(order) if order else None, customer).row(command))
        await _store(connection, shop_id, change)
        log_applied(command)
        return effect.result


class MemoryEffects:
    """EffectsPort in memory: each command is carried out without a pause."""

    def __init__(self, shop: MemoryShop) -> None:
        self._shop = shop
        self._effects: dict[str, tuple[datetime, Command, Effect]] = {}

    async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
        """Change one of the customer's own orders, or their account, once per key; see the port.

        Raises ContractBroken: the key was used for another command.
        """
        if command.effect_key in self._effects:
            return result_again(self._effects[command.effect_key][2], command, user_id)
        change = change_for(command, *self._shop.rows(command.tenant_id, _order_id(command), user_id))
        effect = effect_of(command, user_id, change)
        self._note(command, effect)
        self._shop.store(command.tenant_id, change)
        return effect.result

    async def send(self, command: SendReply) -> EffectResult:
        """Note the reply, once per key. Raises as `apply` does."""
        if command.effect_key in self._effects:
            return result_again(self._effects[command.effect_key][2], command, None)
        self._note(command, Effect(KIND_OF_COMMAND[SendReply], None, to_json(command), _SENT))
        return _SENT

    def entries_of(self, ticket_id: str) -> Sequence[TimelineEntry]:
        """The ticket's effects as its timeline tells them."""
        return [
            TimelineEntry(at, timeline.EFFECT, _detail(command, effect))
            for at, command, effect in self._effects.values()
            if command.ticket_id == ticket_id
        ]

    def _note(self, command: Command, effect: Effect) -> None:
        self._effects[command.effect_key] = (datetime.now(UTC), command, effect)


def effect_of(command: ShopCommand, user_id: str, change: Change) -> Effect:
    """What to note of a change."""
    return Effect(
        kind=KIND_OF_COMMAND[type(command)],
        user_id=user_id,
        command=to_json(command),
        result=EffectResult(change.order, change.amount),
    )


def result_again(earlier: Effect, command: Command, user_id: str | None) -> EffectResult:
    """What the key's effect did then. Raises ContractBroken: it was another command.

    Only the fields that both know are compared: the two may come from neighbouring versions of this code.
    """
    then, now = json.loads(earlier.command), json.loads(to_json(command))
    same_fields = all(then[name] == now[name] for name in then.keys() & now.keys())
    if (earlier.kind, earlier.user_id) != (KIND_OF_COMMAND[type(command)], user_id) or not same_fields:
        raise _key_reused(command)
    return earlier.result


def log_applied(command: ShopCommand) -> None:
    """Say that an order or an account was changed, ids only."""
    ids = {"effect_key": command.effect_key, "ticket_id": command.ticket_id, "order_id": _order_id(command)}
    _log.info("shop changed", extra={"kind": KIND_OF_COMMAND[type(command)], **ids})


def _order_id(command: ShopCommand) -> str | None:
    return None if isinstance(command, ChangeDefaultAddress) else command.order_id


async def _products(connection: "Connection", shop_id: str, command: ShopCommand, order: Order | None) -> Products:
    if not isinstance(command, ExchangeItems | ModifyItems):
        return NO_PRODUCTS
    rows = await connection.fetch(_LOCK_PRODUCTS, shop_id, product_ids_of(order))
    products = [from_json(Product, row["document"]) for row in rows]
    return {product.product_id: product for product in products}


async def _locked_order(connection: "Connection", shop_id: str, order_id: str) -> Order | None:
    # The second look is for a shop loaded anew while the first one waited: it finds the row that came instead.
    document = await connection.fetchval(_LOCK_ORDER, shop_id, order_id)
    document = document or await connection.fetchval(_LOCK_ORDER, shop_id, order_id)
    return from_json(Order, document) if document else None


async def find_effect(connection: "Connection", command: Command) -> Effect | None:
    """What was done under the command's key, if anything."""
    row = await connection.fetchrow(_FIND, command.effect_key)
    if row is None:
        return None
    order = row["order_then"] and from_json(Order, row["order_then"])
    return Effect(row["kind"], row["user_id"], row["command"], EffectResult(order, row["amount"]))


async def note_effect(connection: "Connection", command: Command, effect: Effect) -> bool:
    """Note the effect under its key; False when the key is taken."""
    order = effect.result.order
    noted: Any = await connection.fetchval(
        _NOTE,
        command.effect_key,
        effect.kind,
        command.ticket_id,
        command.tenant_id,
        effect.user_id,
        order.order_id if order else None,
        effect.command,
        to_json(order) if order else None,
        effect.result.amount,
    )
    return noted is not None


async def _store(connection: "Connection", shop_id: str, change: Change) -> None:
    order, customer = change.order, change.customer
    if order is not None:
        await connection.execute(_STORE_ORDER, shop_id, order.order_id, order.status, to_json(order))
    await connection.execute(_STORE_CUSTOMER, shop_id, customer.user_id, to_json(customer))


def _key_reused(command: Command) -> ContractBroken:
    return ContractBroken(f"effect key {command.effect_key} was used for another command")


def _detail(command: Command, effect: Effect) -> dict[str, Any]:
    order = effect.result.order
    return timeline.effect(
        effect.kind, command.effect_key, order.order_id if order else None, float(effect.result.amount)
    )
