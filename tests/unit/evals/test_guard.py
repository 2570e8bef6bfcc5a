"""The guard on the gold actions of real retail tasks and their mutations, and the eval's own sharpness."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.policy import stating
from agents.rules import ALWAYS, RULES, Amount, Check, Rules
from contracts.errors import Misconfigured
from contracts.shop import ActionKind
from evals.guard import evaluate
from evals.mutations import MUTATIONS, SECOND_TIME
from evals.scores import Scores
from ops.demo.shop import demo_shop
from state.policy_text import passages_of

SHARED = Path(os.environ.get("SWITCHYARD_SHARED", Path(__file__).resolve().parents[4] / "shared"))
TASKS = SHARED / "data" / "retail_tasks"
RETAIL = SHARED / "data" / "retail_db"
DEV = TASKS / "tau2_dev.jsonl"

with_tasks = pytest.mark.skipif(not TASKS.exists(), reason=f"the retail tasks are not at {TASKS}")


def figure(scores: Scores, *path: str) -> Any:
    found: Any = scores.figures
    for name in path:
        found = found[name]
    return found


@with_tasks
async def test_the_guard_accepts_the_gold_actions_and_refuses_every_mutation() -> None:
    scores = await evaluate(TASKS, RETAIL)
    assert figure(scores, "n") > 700
    assert figure(scores, "refused_mutations") == 1
    assert set(figure(scores, "per_mutation")) == {*MUTATIONS, SECOND_TIME}
    assert figure(scores, "accepted_sound_gold") == 1
    assert figure(scores, "accepted_gold") >= 0.975
    assert figure(scores, "flawed_gold") == len(scores.notes)
    assert all("gold" in note and "by the policy's plain words, too" in note for note in scores.notes), scores.notes


@with_tasks
@pytest.mark.parametrize("file", ["tau2_dev.jsonl", "tau1_dev.jsonl"])
async def test_at_least_98_of_100_gold_actions_written_by_hand_are_accepted(file: str) -> None:
    scores = await evaluate(TASKS / file, RETAIL)
    assert figure(scores, "accepted_gold") >= 0.98, scores.notes


@with_tasks
def test_every_condition_finds_the_policys_own_sentence() -> None:
    passages = passages_of((RETAIL / "policy.md").read_text(encoding="utf-8"))
    silent = {check for check, words in ALWAYS.items() if not words}
    assert silent == {Check.AMOUNT}
    for rule in RULES.values():
        assert stating(passages, rule.words)
        conditions = {**rule.checks, **ALWAYS}
        told = {check: stating(passages, words) for check, words in conditions.items() if check not in silent}
        assert all(told.values()), (rule.action, told)
        assert "once per order" in (told.get(Check.ONCE) or "once per order") or rule.amount is Amount.ITEMS


def without(action: ActionKind, check: Check) -> Rules:
    rule = RULES[action]
    return {**RULES, action: replace(rule, checks={c: words for c, words in rule.checks.items() if c is not check})}


@pytest.mark.parametrize(
    ("action", "check", "mutation"),
    [
        (ActionKind.RETURN_DELIVERED_ORDER_ITEMS, Check.ITEMS_IN_ORDER, "item_not_in_order"),
        (ActionKind.RETURN_DELIVERED_ORDER_ITEMS, Check.ORIGINAL_OR_GIFT_CARD, "method_not_allowed"),
        (ActionKind.RETURN_DELIVERED_ORDER_ITEMS, Check.ORIGINAL_OR_GIFT_CARD, "method_not_theirs"),
        (ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS, Check.SAME_PRODUCT, "other_product"),
        (ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS, Check.AVAILABLE, "unavailable_item"),
        (ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS, Check.OWN_METHOD, "method_not_theirs"),
        (ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS, Check.COVERED, "gift_card_short"),
        (ActionKind.MODIFY_PENDING_ORDER_ITEMS, Check.SAME_PRODUCT, "other_product"),
        (ActionKind.MODIFY_PENDING_ORDER_ITEMS, Check.COVERED, "gift_card_short"),
    ],
)
@with_tasks
async def test_a_condition_that_is_dropped_turns_the_eval_red(action: ActionKind, check: Check, mutation: str) -> None:
    scores = await evaluate(DEV, RETAIL, without(action, check))
    assert figure(scores, "refused_mutations") < 1
    assert figure(scores, "per_mutation", mutation, "refused") < 1
    assert any(mutation in note for note in scores.notes)


@pytest.mark.parametrize("action", [action for action in ActionKind if RULES[action].statuses])
@with_tasks
async def test_a_state_that_is_permitted_too_much_turns_the_eval_red(action: ActionKind) -> None:
    wider = replace(RULES[action], statuses=(*RULES[action].statuses, "processed"))
    scores = await evaluate(TASKS / "tau1_dev.jsonl", RETAIL, {**RULES, action: wider})
    assert figure(scores, "per_mutation", "wrong_state", "refused") < 1


@with_tasks
async def test_a_rule_that_is_dropped_refuses_its_gold() -> None:
    rules = {action: rule for action, rule in RULES.items() if action is not ActionKind.CANCEL_PENDING_ORDER}
    scores = await evaluate(DEV, RETAIL, rules)
    assert figure(scores, "per_action", ActionKind.CANCEL_PENDING_ORDER, "accepted") == 0
    assert figure(scores, "accepted_gold") < 0.98
    assert any("no rule permits this action" in note for note in scores.notes)


# --- without the shared data --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, export = tmp_path_factory.mktemp("shop"), demo_shop()
    for name, rows in (("users", export.customers), ("orders", export.orders), ("products", export.products)):
        lines = [row.model_dump_json() for row in rows]
        (directory / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (directory / "policy.md").write_text(export.policy_markdown, encoding="utf-8")
    return directory


def task_file(directory: Path, *writes: Mapping[str, Any], user_id: str | None) -> Path:
    file = directory / "tasks.jsonl"
    file.write_text(json.dumps({"id": "t", "user_id": user_id, "gold_write_actions": writes}) + "\n")
    return file


async def test_a_changed_account_is_judged_too_and_a_transfer_is_no_action(tmp_path: Path, shop: Path) -> None:
    customer = demo_shop().customers[0]
    home = {"address1": "1 New Row", "city": "Ithaca", "state": "NY", "country": "USA", "zip": "14850"}
    writes = (
        {"name": "modify_user_address", "arguments": {"user_id": customer.user_id, **home}},
        {"name": "transfer_to_human_agents", "arguments": {"summary": "more"}},
    )
    scores = await evaluate(task_file(tmp_path, *writes, user_id=None), shop)
    assert (figure(scores, "n"), figure(scores, "accepted_gold"), figure(scores, "refused_mutations")) == (1, 1, 1)
    assert scores.right == {"modify_user_address/t/1": 1}
    assert scores.figures["per_mutation"] == {
        kind: {"n": 1, "refused": 1} for kind in ("detail_missing", "not_confirmed", "second_time")
    }


async def test_gold_that_names_what_is_not_there_is_refused_and_told_to_be_wrong(tmp_path: Path, shop: Path) -> None:
    order = next(order for order in demo_shop().orders if order.status == "pending")
    swap = {
        "order_id": order.order_id,
        "item_ids": [order.items[0].item_id],
        "new_item_ids": ["0"],
        "payment_method_id": order.payment_history[0].payment_method_id,
    }
    write = {"name": "modify_pending_order_items", "arguments": swap}
    scores = await evaluate(task_file(tmp_path, write, user_id=order.user_id), shop)
    assert (figure(scores, "accepted_gold"), figure(scores, "flawed_gold")) == (0, 1)
    [note] = scores.notes
    assert "a new item is not of the same product" in note
    assert "an item is not in the order, or a new one not of its products" in note


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"id": "t"}', "line 1"),
        ("nonsense", "line 1"),
        ('{"id": "t", "user_id": "u", "gold_write_actions": [{}]}', "name"),
    ],
)
async def test_what_is_no_task_is_named(tmp_path: Path, shop: Path, content: str, why: str) -> None:
    (tmp_path / "tasks.jsonl").write_text(content)
    with pytest.raises(Misconfigured, match=why):
        await evaluate(tmp_path, shop)


async def test_tasks_of_another_shop_are_named(tmp_path: Path, shop: Path) -> None:
    cancel = {"name": "cancel_pending_order", "arguments": {"order_id": "#W1", "reason": "no longer needed"}}
    with pytest.raises(Misconfigured, match="no customer nobody"):
        await evaluate(task_file(tmp_path, cancel, user_id="nobody"), shop)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misconfigured, match="holds no"):
        await evaluate(tmp_path / "empty", shop)
    with pytest.raises(Misconfigured, match=r"absent\.jsonl"):
        await evaluate(tmp_path / "absent.jsonl", shop)
