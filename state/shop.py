"""The shop: whose orders, which policy. Every read is of the one shop that the tenant sees."""

from collections.abc import Callable, Collection, Mapping, Sequence

import asyncpg

from contracts.shop import Customer, Order, Passage, Product
from state.documents import from_json
from state.policies import MemoryPolicies, PostgresPolicies
from state.policy_text import passages_of
from state.pool import borrowed
from state.shop_files import ShopExport
from state.shop_rules import Change, Products, email_key, product_ids_of

ShopOf = Callable[[str], str]
"""The id of the shop whose rows a tenant sees."""


async def has_orders(pool: asyncpg.Pool, shop_id: str) -> bool:
    """Whether somebody loaded a shop under this id."""
    async with borrowed(pool) as connection:
        return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM shop_orders WHERE shop_id = $1)", shop_id))


class PostgresShop:
    """Shop on a migrated database."""

    def __init__(self, pool: asyncpg.Pool, shop_of: ShopOf) -> None:
        self._pool = pool
        self._policies = PostgresPolicies(pool)
        self._shop_of = shop_of

    async def customer(self, tenant_id: str, email: str) -> Customer | None:
        """The customer with this e-mail address, compared without regard to case."""
        found = await self._documents(
            "SELECT document FROM shop_customers WHERE shop_id = $1 AND email_key = $2", tenant_id, email_key(email)
        )
        return from_json(Customer, found[0]) if found else None

    async def orders_of(self, tenant_id: str, user_id: str) -> Sequence[Order]:
        """All orders of a customer, in the order of their ids."""
        found = await self._documents(
            'SELECT document FROM shop_orders WHERE shop_id = $1 AND user_id = $2 ORDER BY order_id COLLATE "C"',
            tenant_id,
            user_id,
        )
        return [from_json(Order, document) for document in found]

    async def order(self, tenant_id: str, order_id: str) -> Order | None:
        """The order of that id, whoever owns it: callers check the owner."""
        found = await self._documents(
            "SELECT document FROM shop_orders WHERE shop_id = $1 AND order_id = $2", tenant_id, order_id
        )
        return from_json(Order, found[0]) if found else None

    async def products(self, tenant_id: str, product_ids: Collection[str]) -> Products:
        """The products of these ids with their variants as they are now, by id; unknown ones are left out."""
        found = await self._documents(
            "SELECT document FROM shop_products WHERE shop_id = $1 AND product_id = ANY($2)",
            tenant_id,
            list(product_ids),
        )
        return {product.product_id: product for product in (from_json(Product, document) for document in found)}

    async def policy(self, tenant_id: str) -> Sequence[Passage]:
        """The policy in force, passage by passage; empty when none was loaded."""
        shop_id = self._shop_of(tenant_id)
        version = await self._policies.in_force(shop_id)
        return await self._policies.passages(shop_id, version) if version else ()

    async def _documents(self, query: str, tenant_id: str, *rest: str | list[str]) -> list[str]:
        async with borrowed(self._pool) as connection:
            return [row["document"] for row in await connection.fetch(query, self._shop_of(tenant_id), *rest)]


class MemoryShop:
    """Shop in memory, from the exports of its shops by their ids."""

    def __init__(self, exports: Mapping[str, ShopExport], shop_of: ShopOf) -> None:
        self._shop_of = shop_of
        self._customers = {(shop, c.user_id): c for shop, export in exports.items() for c in export.customers}
        self._orders = {(shop, o.order_id): o for shop, export in exports.items() for o in export.orders}
        self._products = {(shop, p.product_id): p for shop, export in exports.items() for p in export.products}
        self.policies = MemoryPolicies({shop: passages_of(export.policy_markdown) for shop, export in exports.items()})

    async def customer(self, tenant_id: str, email: str) -> Customer | None:
        """The customer with this e-mail address, compared without regard to case."""
        shop_id, wanted = self._shop_of(tenant_id), email_key(email)
        of_shop = (c for (shop, _), c in self._customers.items() if shop == shop_id)
        return next((c for c in of_shop if email_key(c.email) == wanted), None)

    async def orders_of(self, tenant_id: str, user_id: str) -> Sequence[Order]:
        """All orders of a customer, in the order of their ids."""
        shop_id = self._shop_of(tenant_id)
        theirs = [o for (shop, _), o in self._orders.items() if shop == shop_id and o.user_id == user_id]
        return sorted(theirs, key=lambda order: order.order_id)

    async def order(self, tenant_id: str, order_id: str) -> Order | None:
        """The order of that id, whoever owns it: callers check the owner."""
        return self._orders.get((self._shop_of(tenant_id), order_id))

    async def products(self, tenant_id: str, product_ids: Collection[str]) -> Products:
        """The products of these ids with their variants as they are now, by id; unknown ones are left out."""
        return self._products_of(self._shop_of(tenant_id), product_ids)

    async def policy(self, tenant_id: str) -> Sequence[Passage]:
        """The policy in force, passage by passage; empty when none was loaded."""
        shop_id = self._shop_of(tenant_id)
        version = await self.policies.in_force(shop_id)
        return await self.policies.passages(shop_id, version) if version else ()

    def rows(
        self, tenant_id: str, order_id: str | None, user_id: str
    ) -> tuple[Order | None, Customer | None, Products]:
        """The order and the customer of these ids, and the products of the order's pieces, for `MemoryEffects`."""
        shop_id = self._shop_of(tenant_id)
        order = self._orders.get((shop_id, order_id)) if order_id else None
        return order, self._customers.get((shop_id, user_id)), self._products_of(shop_id, product_ids_of(order))

    def store(self, tenant_id: str, change: Change) -> None:
        """Put changed rows in place of the old, for `MemoryEffects`."""
        shop_id = self._shop_of(tenant_id)
        if change.order is not None:
            self._orders[shop_id, change.order.order_id] = change.order
        self._customers[shop_id, change.customer.user_id] = change.customer

    def _products_of(self, shop_id: str, product_ids: Collection[str]) -> Products:
        known = ((product_id, self._products.get((shop_id, product_id))) for product_id in product_ids)
        return {product_id: product for product_id, product in known if product}
