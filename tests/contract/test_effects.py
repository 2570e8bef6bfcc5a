"""What every effects port promises: each key once, and nothing that the shop's own rows forbid."""

import asyncio
import json
from decimal import Decimal

import asyncpg
import pytest

from contracts.errors import ContractBroken, EffectRefused
from contracts.events import ChangePayment, ModifyItems
from contracts.ports import EffectResult
from state.effects import MemoryEffects, PostgresEffects
from state.shop import MemoryShop, PostgresShop
from state.shop_files import load_shop
from tests.contract.backends import until_one_waits
from tests.contract.samples import (
    EXPORT,
    OTHER_EXPORT,
    OTHER_SHOP,
    OTHER_TENANT,
    SHOP,
    TENANT,
    THERE,
    cancel,
    exchange,
    give_back,
    modify,
    move,
    move_home,
    pay_with,
    reply,
    shop_of,
)

Effects = MemoryEffects | PostgresEffects
Shop = MemoryShop | PostgresShop


class EffectsContract:
    async def test_a_cancelled_order_is_refunded_and_the_shop_knows(self, effects: Effects, shop: Shop) -> None:
        result = await effects.apply(cancel("k1"), "ada")
        assert result.amount == Decimal("12.35")
        assert result.order is not None
        assert (result.order.status, result.order.cancel_reason) == ("cancelled", "no longer needed")
        assert await shop.order(TENANT, "#W1") == result.order

    async def test_items_asked_back_are_noted_on_the_order(self, effects: Effects, shop: Shop) -> None:
        result = await effects.apply(give_back("k1", "i2", method="gift_1"), "ada")
        assert result.amount == Decimal("7.20")
        found = await shop.order(TENANT, "#W2")
        assert found is not None
        assert (found.status, found.return_items, found.return_payment_method_id) == (
            "return requested",
            ("i2",),
            "gift_1",
        )

    async def test_a_pending_order_is_sent_elsewhere(self, effects: Effects, shop: Shop) -> None:
        assert (await effects.apply(move("k1"), "ada")).amount == 0
        found = await shop.order(TENANT, "#W1")
        assert found is not None
        assert (found.address, found.status) == (THERE, "pending")

    async def test_an_exchange_is_noted_on_the_order_and_moves_no_money_yet(self, effects: Effects, shop: Shop) -> None:
        result = await effects.apply(exchange("k1", "14.90", "i1", new=["dear"]), "ada")
        assert result.amount == Decimal("14.90")
        found = await shop.order(TENANT, "#W2")
        assert found is not None
        assert found == result.order
        assert (found.status, found.exchange_items, found.exchange_new_items) == (
            "exchange requested",
            ("i1",),
            ("dear",),
        )
        assert (found.exchange_payment_method_id, found.exchange_price_difference) == ("card_1", Decimal("14.90"))
        assert found.items == EXPORT.orders[0].items
        assert await shop.customer(TENANT, "ada.reed@example.com") == EXPORT.customers[0]

    async def test_modified_items_stand_in_the_order_and_the_difference_is_paid(
        self, effects: Effects, shop: Shop
    ) -> None:
        result = await effects.apply(modify("k1", "7.70", "i1", new=["dear"], method="gift_1"), "ada")
        assert result.amount == Decimal("7.70")
        found = await shop.order(TENANT, "#W1")
        assert found is not None
        assert found.status == "pending (item modified)"
        assert [(i.item_id, i.price, i.options) for i in found.items] == [
            ("dear", Decimal("20.00"), {"size": "L"}),
            ("i2", Decimal("0.05"), {}),
        ]
        last = found.payment_history[-1]
        assert (last.transaction_type, last.amount, last.payment_method_id) == ("payment", Decimal("7.70"), "gift_1")
        assert await self.gift_card(shop) == Decimal("2.30")

    async def test_a_cheaper_item_gives_the_difference_back(self, effects: Effects, shop: Shop) -> None:
        result = await effects.apply(modify("k1", "-8.30", "i1", new=["cheap"], method="gift_1"), "ada")
        assert result.order is not None
        last = result.order.payment_history[-1]
        assert (last.transaction_type, last.amount) == ("refund", Decimal("8.30"))
        assert await self.gift_card(shop) == Decimal("18.30")

    async def test_a_new_payment_method_pays_and_the_first_gets_its_money_back(
        self, effects: Effects, shop: Shop
    ) -> None:
        result = await effects.apply(pay_with("k1", "paypal_1"), "ada")
        assert (result.amount, result.order and result.order.status) == (Decimal("12.35"), "pending")
        found = await shop.order(TENANT, "#W1")
        assert found is not None
        assert [(e.transaction_type, e.amount, e.payment_method_id) for e in found.payment_history[1:]] == [
            ("payment", Decimal("12.35"), "paypal_1"),
            ("refund", Decimal("12.35"), "card_1"),
        ]
        with pytest.raises(EffectRefused, match="once only"):
            await effects.apply(pay_with("k2", "card_1"), "ada")

    async def test_an_account_is_moved_and_its_orders_stay(self, effects: Effects, shop: Shop) -> None:
        result = await effects.apply(move_home("k1"), "ada")
        assert result == EffectResult(order=None, amount=Decimal(0))
        assert await effects.apply(move_home("k1"), "ada") == result
        ada = await shop.customer(TENANT, "ada.reed@example.com")
        assert ada is not None
        assert ada.address == THERE
        assert await shop.order(TENANT, "#W1") == EXPORT.orders[1]
        with pytest.raises(EffectRefused, match="account"):
            await effects.apply(move_home("k2"), "nobody")

    async def test_twenty_at_once_modify_an_order_once(self, effects: Effects, shop: Shop) -> None:
        command = modify("k1", "7.70", "i1", new=["dear"], method="gift_1")
        results = await asyncio.gather(*(effects.apply(command, "ada") for _ in range(20)))
        assert all(result == results[0] for result in results)
        assert await self.gift_card(shop) == Decimal("2.30")

    @pytest.mark.parametrize(
        "command",
        [
            modify("k1", "7.70", "i1", new=["gone"]),
            modify("k1", "0", "i1", new=["nothing"]),
            modify("k1", "7.69", "i1", new=["dear"]),
            pay_with("k1", "gift_1"),
        ],
    )
    async def test_what_the_rows_forbid_changes_nothing(
        self, effects: Effects, shop: Shop, command: ModifyItems | ChangePayment
    ) -> None:
        with pytest.raises(EffectRefused):
            await effects.apply(command, "ada")
        assert await shop.order(TENANT, "#W1") == EXPORT.orders[1]
        assert await shop.customer(TENANT, "ada.reed@example.com") == EXPORT.customers[0]

    async def gift_card(self, shop: Shop) -> Decimal | None:
        ada = await shop.customer(TENANT, "ada.reed@example.com")
        assert ada is not None
        return ada.payment_methods["gift_1"].balance

    async def test_a_key_applied_again_returns_what_it_did_then(self, effects: Effects, shop: Shop) -> None:
        first = await effects.apply(move("k1"), "ada")
        await effects.apply(cancel("k2"), "ada")
        assert await effects.apply(move("k1"), "ada") == first
        assert await effects.apply(cancel("k2"), "ada") == await effects.apply(cancel("k2"), "ada")
        found = await shop.order(TENANT, "#W1")
        assert found is not None
        assert [entry.transaction_type for entry in found.payment_history] == ["payment", "refund"]

    async def test_twenty_at_once_apply_one_effect(self, effects: Effects, shop: Shop) -> None:
        results = await asyncio.gather(*(effects.apply(cancel("k1"), "ada") for _ in range(20)))
        assert all(result == results[0] for result in results)
        found = await shop.order(TENANT, "#W1")
        assert found is not None
        assert len(found.payment_history) == 2

    async def test_twenty_keys_for_one_order_refund_it_once(self, effects: Effects) -> None:
        results = await asyncio.gather(
            *(effects.apply(cancel(f"k{n}"), "ada") for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(result, EffectResult) for result in results) == 1
        assert sum(isinstance(result, EffectRefused) for result in results) == 19

    @pytest.mark.parametrize(
        "other", [cancel("k1", "#W3"), move("k1"), cancel("k1").model_copy(update={"ticket_id": "t2"})]
    )
    async def test_a_key_reused_for_another_command_breaks_the_contract(
        self, effects: Effects, shop: Shop, other: object
    ) -> None:
        await effects.apply(cancel("k1"), "ada")
        with pytest.raises(ContractBroken):
            await effects.apply(other, "ada")  # type: ignore[arg-type]
        with pytest.raises(ContractBroken):
            await effects.apply(cancel("k1"), "bo")
        with pytest.raises(ContractBroken):
            await effects.send(reply("k1"))
        assert await shop.order(TENANT, "#W3") == EXPORT.orders[3]

    async def test_one_key_raced_for_by_two_orders_changes_one(self, effects: Effects, shop: Shop) -> None:
        commands = [(cancel("k1", "#W1"), "ada"), (cancel("k1", "#W3"), "bo")] * 5
        results = await asyncio.gather(*(effects.apply(*command) for command in commands), return_exceptions=True)
        assert sum(isinstance(result, ContractBroken) for result in results) == 5
        orders = [await shop.order(TENANT, order_id) for order_id in ("#W1", "#W3")]
        assert sorted(order.status for order in orders if order) == ["cancelled", "pending"]

    @pytest.mark.parametrize("order_id", ["#W3", "#W99"])
    async def test_anothers_order_and_an_unknown_one_are_refused_alike(
        self, effects: Effects, shop: Shop, order_id: str
    ) -> None:
        with pytest.raises(EffectRefused) as caught:
            await effects.apply(cancel("k1", order_id), "ada")
        assert str(caught.value) == "the order is not one of this customer's"
        assert await shop.order(TENANT, "#W3") == EXPORT.orders[3]

    async def test_a_refused_key_is_free_for_a_later_try(self, effects: Effects) -> None:
        with pytest.raises(EffectRefused, match="pending"):
            await effects.apply(cancel("k1", "#W2"), "ada")
        assert (await effects.apply(cancel("k1"), "ada")).amount == Decimal("12.35")

    async def test_a_command_changes_the_shop_of_its_tenant_alone(self, effects: Effects, shop: Shop) -> None:
        with pytest.raises(EffectRefused):
            await effects.apply(cancel("k1").model_copy(update={"tenant_id": OTHER_TENANT}), "ada")
        await effects.apply(cancel("k2"), "ada")
        assert await shop.order(OTHER_TENANT, "#W1") == OTHER_EXPORT.orders[0]

    async def test_a_reply_is_sent_once_and_its_key_serves_no_other(self, effects: Effects) -> None:
        nothing = EffectResult(order=None, amount=Decimal(0))
        assert await effects.send(reply("k1")) == nothing
        assert await effects.send(reply("k1")) == nothing
        with pytest.raises(ContractBroken):
            await effects.send(reply("k1", "Something else."))


class TestInMemory(EffectsContract):
    @pytest.fixture
    def shop(self) -> MemoryShop:
        return MemoryShop({SHOP: EXPORT, OTHER_SHOP: OTHER_EXPORT}, shop_of)

    @pytest.fixture
    def effects(self, shop: MemoryShop) -> MemoryEffects:
        return MemoryEffects(shop)


@pytest.mark.postgres
class TestOnPostgres(EffectsContract):
    @pytest.fixture
    async def pool(self, pool: asyncpg.Pool) -> asyncpg.Pool:
        await load_shop(pool, SHOP, EXPORT)
        await load_shop(pool, OTHER_SHOP, OTHER_EXPORT)
        return pool

    @pytest.fixture
    def shop(self, pool: asyncpg.Pool) -> PostgresShop:
        return PostgresShop(pool, shop_of)

    @pytest.fixture
    def effects(self, pool: asyncpg.Pool) -> PostgresEffects:
        return PostgresEffects(pool, shop_of)

    async def test_a_reply_is_kept_with_its_payload(self, effects: PostgresEffects, pool: asyncpg.Pool) -> None:
        await effects.send(reply("k1"))
        row = await pool.fetchrow("SELECT kind, command FROM effects")
        assert row is not None
        assert row["kind"] == "send_reply"
        assert json.loads(row["command"])["text"] == "It is on its way."

    async def test_a_command_noted_by_an_older_version_is_the_same_command(
        self, effects: PostgresEffects, pool: asyncpg.Pool
    ) -> None:
        first = await effects.apply(cancel("k1"), "ada")
        await pool.execute("UPDATE effects SET command = command - 'round' || '{\"later\": 1}'")
        assert await effects.apply(cancel("k1"), "ada") == first

    async def test_an_effect_that_waited_for_a_shop_loaded_anew_finds_its_order(
        self, effects: PostgresEffects, postgres_dsn: str
    ) -> None:
        loader = await asyncpg.connect(postgres_dsn)
        await loader.execute("BEGIN")
        await loader.execute("CREATE TEMP TABLE kept AS SELECT * FROM shop_orders")
        await loader.execute("DELETE FROM shop_orders")
        waiting = asyncio.create_task(effects.apply(cancel("k1"), "ada"))
        await until_one_waits(loader)
        await loader.execute("INSERT INTO shop_orders SELECT * FROM kept; COMMIT")
        assert (await waiting).amount == Decimal("12.35")
        await loader.close()
