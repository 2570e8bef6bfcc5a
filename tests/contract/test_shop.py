"""What every shop promises."""

import asyncio

import asyncpg
import pytest

from contracts.errors import ContractBroken
from state.policy_text import passages_of
from state.shop import MemoryShop, PostgresShop, has_orders
from state.shop_files import ShopExport, load_shop
from tests.contract.samples import (
    EXPORT,
    OTHER_EXPORT,
    OTHER_SHOP,
    OTHER_TENANT,
    SHOP,
    TENANT,
    customer,
    order,
    shop_of,
)

Shop = MemoryShop | PostgresShop


class ShopContract:
    async def test_a_customer_is_found_by_their_address_in_any_case(self, shop: Shop) -> None:
        ada = EXPORT.customers[0]
        assert await shop.customer(TENANT, "Ada.Reed@Example.com") == ada
        assert await shop.customer(TENANT, " ADA.REED@EXAMPLE.COM ") == ada

    async def test_an_unknown_address_is_nobody(self, shop: Shop) -> None:
        assert await shop.customer(TENANT, "eve@example.com") is None
        assert await shop.customer(TENANT, "") is None
        assert await shop.customer(TENANT, "%") is None

    async def test_a_customers_orders_come_in_the_order_of_their_ids(self, shop: Shop) -> None:
        orders = await shop.orders_of(TENANT, "ada")
        assert [found.order_id for found in orders] == ["#W1", "#W10", "#W2"]
        assert await shop.orders_of(TENANT, "nobody") == []

    async def test_an_order_is_found_by_its_id_whoever_owns_it(self, shop: Shop) -> None:
        assert await shop.order(TENANT, "#W3") == EXPORT.orders[3]
        assert await shop.order(TENANT, "#W99") is None
        assert await shop.order(TENANT, "#w3") is None

    async def test_products_are_found_by_their_ids_with_their_variants(self, shop: Shop) -> None:
        assert await shop.products(TENANT, ["p1", "p99"]) == {"p1": EXPORT.products[0]}
        assert await shop.products(TENANT, []) == {}
        assert await shop.products(OTHER_TENANT, ["p1"]) == {}

    async def test_the_policy_comes_passage_by_passage_in_its_order(self, shop: Shop) -> None:
        passages = await shop.policy(TENANT)
        assert [passage.text for passage in passages] == ["Be kind.", "Bring it back. Within a month."]
        assert tuple(passages) == passages_of(EXPORT.policy_markdown)

    async def test_a_shop_without_a_policy_has_no_passages(self, shop: Shop) -> None:
        assert list(await shop.policy(OTHER_TENANT)) == []

    async def test_a_tenant_sees_its_own_shop_alone(self, shop: Shop) -> None:
        assert await shop.customer(OTHER_TENANT, "bo@example.com") is None
        assert await shop.order(OTHER_TENANT, "#W3") is None
        assert await shop.order(OTHER_TENANT, "#W1") == OTHER_EXPORT.orders[0]
        assert await shop.orders_of(OTHER_TENANT, "ada") == [OTHER_EXPORT.orders[0]]


class TestInMemory(ShopContract):
    @pytest.fixture
    def shop(self) -> MemoryShop:
        return MemoryShop({SHOP: EXPORT, OTHER_SHOP: OTHER_EXPORT}, shop_of)


@pytest.mark.postgres
class TestOnPostgres(ShopContract):
    @pytest.fixture
    async def shop(self, pool: asyncpg.Pool) -> PostgresShop:
        await load_shop(pool, SHOP, EXPORT)
        await load_shop(pool, OTHER_SHOP, OTHER_EXPORT)
        return PostgresShop(pool, shop_of)

    async def test_loading_tells_how_many_of_each_there_are(self, pool: asyncpg.Pool) -> None:
        assert not await has_orders(pool, SHOP)
        assert await load_shop(pool, SHOP, EXPORT) == {"orders": 4, "customers": 2, "products": 1, "passages": 2}
        assert await has_orders(pool, SHOP)
        assert not await has_orders(pool, OTHER_SHOP)

    async def test_loading_again_replaces_that_shop_alone(self, pool: asyncpg.Pool, shop: PostgresShop) -> None:
        await load_shop(pool, SHOP, ShopExport(customers=(customer("cy", "cy@example.com"),)))
        assert await shop.orders_of(TENANT, "ada") == []
        assert list(await shop.policy(TENANT)) == []
        assert await shop.customer(TENANT, "cy@example.com") is not None
        assert await shop.order(OTHER_TENANT, "#W1") is not None

    async def test_loading_in_parallel_leaves_one_of_the_shops_whole(
        self, pool: asyncpg.Pool, shop: PostgresShop
    ) -> None:
        exports = [
            ShopExport(
                customers=(customer("cy", f"cy{n}@example.com"),),
                orders=tuple(order(f"#X{i}", f"u{n}", "pending", "1") for i in range(20)),
            )
            for n in range(5)
        ]
        await asyncio.gather(*(load_shop(pool, SHOP, export) for export in exports))
        owners = {found.user_id for n in range(5) for found in await shop.orders_of(TENANT, f"u{n}")}
        assert len(owners) == 1

    async def test_an_export_that_cannot_be_stored_leaves_the_shop_as_it_was(
        self, pool: asyncpg.Pool, shop: PostgresShop
    ) -> None:
        broken = order("#W8", "ada", "pending", "1").model_copy(update={"status": "NUL \x00"})
        with pytest.raises(ContractBroken):
            await load_shop(pool, SHOP, ShopExport(orders=(broken,)))
        twins = ShopExport(customers=(customer("cy", "cy@example.com"), customer("di", "CY@example.com")))
        with pytest.raises(ContractBroken):
            await load_shop(pool, SHOP, twins)
        assert len(await shop.orders_of(TENANT, "ada")) == 3
