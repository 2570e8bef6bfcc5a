from typing import Any

import pytest

from evals.support_cases import Case, judge, score

ORDER = {"order_id": "#W1000001", "status": "pending", "tracking_ids": [], "items": ["Lamp", "Mug"]}


def outcome(**changed: Any) -> dict[str, Any]:
    return {
        "ticket_id": "c1",
        "lookup": {"outcome": "found", "orders": [ORDER]},
        "assessment": [
            {"action": "return_delivered_order_items", "order_id": "#W1000001", "eligible": False, "rule": "Say: no."},
            {"action": "cancel_pending_order", "order_id": "#W1000001", "eligible": True, "rule": "Yes."},
        ],
        "reply": "",
        **changed,
    }


LOOKUP = Case("c1", "lookup_by_id", {}, {"outcome": "found", "orders": [ORDER]})
ELIGIBILITY = Case(
    "c1",
    "eligibility_get_refund",
    {},
    {
        "action": "return_delivered_order_items",
        "eligible": False,
        "order": ORDER,
        "policy_quote": "no.",
        "alternative": "cancel_pending_order",
    },
)


@pytest.mark.parametrize("case", [LOOKUP, ELIGIBILITY])
def test_what_equals_gold_is_right(case: Case) -> None:
    assert judge(case, [outcome()]).problems == ()


@pytest.mark.parametrize("count", [0, 2])
def test_anything_but_one_outcome_is_wrong(count: int) -> None:
    assert judge(LOOKUP, [outcome()] * count).problems == (f"{count} outcomes",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lookup": {"outcome": "ambiguous", "orders": [ORDER]}},
        {"lookup": {"outcome": "found", "orders": []}},
        {"lookup": {"outcome": "found", "orders": [ORDER | {"status": "delivered"}]}},
        {"lookup": None},
    ],
)
def test_other_facts_are_wrong(wrong: dict[str, Any]) -> None:
    assert judge(LOOKUP, [outcome(**wrong)]).problems


@pytest.mark.parametrize(
    ("index", "changed"),
    [(0, {"eligible": True}), (0, {"rule": "Something else."}), (0, {"action": "x"}), (1, {"eligible": False})],
)
def test_another_assessment_is_wrong(index: int, changed: dict[str, Any]) -> None:
    said = outcome()
    said["assessment"][index] |= changed
    assert judge(ELIGIBILITY, [said]).problems


def test_somebody_elses_order_must_be_not_found_and_nothing_of_it_said() -> None:
    secret = {"order_id": "#W9", "status": "delivered", "tracking_ids": ["777"], "items": ["Grill"]}
    case = Case("c1", "lookup_not_owner", {}, {"outcome": "not_owner", "orders": [], "must_not_reveal": secret})
    hidden = outcome(lookup={"outcome": "not_found", "orders": []}, assessment=[])
    assert judge(case, [hidden]).problems == judge(case, [hidden]).leaks == ()
    assert judge(case, [hidden | {"reply": "your Grill is on its way, 777"}]).leaks == ("777", "Grill")


def test_the_score_counts_by_kind() -> None:
    verdicts = [judge(LOOKUP, [outcome()]), judge(LOOKUP, []), judge(ELIGIBILITY, [outcome()])]
    assert [(k.kind, k.cases, k.right) for k in score(verdicts)] == [
        ("lookup_by_id", 2, 1),
        ("eligibility_get_refund", 1, 1),
    ]
