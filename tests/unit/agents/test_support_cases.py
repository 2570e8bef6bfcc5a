"""The agents on real-world support cases with exact gold from the order database, all in memory."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contracts.events import Outcome
from contracts.facts import OrderFacts
from contracts.ticket import Ticket
from state.shop_files import ShopExport, read_export
from tests.unit.agents.kit import Desks

SHARED = Path(os.environ.get("SWITCHYARD_SHARED", Path(__file__).resolve().parents[4] / "shared"))
CASES = SHARED / "data" / "support_cases" / "dev.jsonl"
RETAIL = SHARED / "data" / "retail_db"
ENOUGH = 0.98
OUTCOMES = {"not_owner": "not_found"}

pytestmark = pytest.mark.skipif(not CASES.exists(), reason=f"the support cases are not at {CASES}")


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def export() -> ShopExport:
    return read_export(RETAIL)


async def test_every_kind_is_settled_as_its_gold_says_and_nothing_leaks(
    cases: list[dict[str, Any]], export: ShopExport
) -> None:
    right, all_of, wrong, leaks = Counter[str](), Counter[str](), list[str](), list[str]()
    desks = Desks(export=export, money_limit_usd=1_000_000)
    for case in cases:
        desks.ticket, desks.emitted = Ticket(ticket_id=case["id"], tenant_id="default"), []
        outcome = await desks.write(case["body"], case["from_email"], order_ref=case["order_ref"])
        why = _difference(outcome, case["gold"])
        all_of[case["kind"]] += 1
        right[case["kind"]] += why is None
        wrong += [f"{case['id']} {case['kind']}: {why}: {case['body']}"] if why else []
        leaks += _leaks(desks, case)
    assert leaks == []
    assert {kind: share for kind in all_of if (share := right[kind] / all_of[kind]) < ENOUGH} == {}, wrong


def _difference(outcome: Outcome, gold: dict[str, Any]) -> str | None:
    assert outcome.lookup is not None
    if "outcome" in gold:
        said = outcome.lookup.outcome, outcome.lookup.orders
        meant = OUTCOMES.get(gold["outcome"], gold["outcome"]), tuple(OrderFacts(**order) for order in gold["orders"])
        return None if said == meant else f"found {said[0]} {[o.order_id for o in said[1]]}"
    if outcome.lookup.orders != (OrderFacts(**gold["order"]),):
        return f"found {outcome.lookup.outcome}"
    first, others = outcome.assessment[0], [a.action for a in outcome.assessment[1:] if a.eligible]
    if (first.action, first.eligible) != (gold["action"], gold["eligible"]):
        return f"assessed {first.action} as {first.eligible}"
    if others != ([gold["alternative"]] if gold["alternative"] else []):
        return f"offered {others}"
    return None if gold["policy_quote"] in first.rule else f"quoted {first.rule}"


def _leaks(desks: Desks, case: dict[str, Any]) -> list[str]:
    secret = case["gold"].get("must_not_reveal")
    if secret is None:
        return []
    told = " ".join(payload.model_dump_json() for payload in desks.emitted)
    words = [*secret["tracking_ids"], *secret["items"], f'"{secret["status"]}"']
    return [f"{case['id']} tells {word}" for word in words if word in told]
