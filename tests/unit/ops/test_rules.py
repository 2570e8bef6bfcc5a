"""Tenants' own rules: read from TOML in the form of the shipped ones, or refused by name."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from agents import guard
from agents.rules import RULES, Check, Detail
from contracts.errors import Misconfigured
from contracts.shop import ActionKind
from contracts.ticket import Proposal
from ops.rules import read_rules, rules_of_tenants
from ops.settings import read_settings
from tests.unit.agents.kit import ANN, CUSTOMERS, DELIVERED, ORDERS

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guard.md"
EXCHANGE = ActionKind.EXCHANGE_DELIVERED_ORDER_ITEMS
STRICT = """
[[rules]]
action = "cancel_pending_order"
statuses = ["pending"]
words = ["cancel"]
statement = "We cancel what is pending."
needs = ["cancel_reason", "address"]
amount = "paid"
checks = {once = ["once"]}
"""


@pytest.fixture
def guides_example(tmp_path: Path) -> Path:
    [block] = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "acme.toml"
    file.write_text(block)
    return file


def test_a_file_stands_in_place_of_the_rules_it_names_alone(guides_example: Path) -> None:
    rules = read_rules(guides_example)
    assert set(rules) == set(RULES)
    assert rules[EXCHANGE].statuses == ()
    assert rules[ActionKind.CANCEL_PENDING_ORDER] is RULES[ActionKind.CANCEL_PENDING_ORDER]
    returning = RULES[ActionKind.RETURN_DELIVERED_ORDER_ITEMS]
    assert set(rules[returning.action].checks) == set(returning.checks)


def test_what_a_tenant_forbids_is_not_eligible_and_not_carried_out(guides_example: Path) -> None:
    rules = read_rules(guides_example)
    order = next(order for order in ORDERS if order.order_id == DELIVERED)
    assessed = guard.assess(EXCHANGE, order, (), rules)
    assert (assessed.eligible, assessed.rule) == (False, "We do not exchange; please return what you do not like.")
    wish = Proposal(
        action=EXCHANGE,
        order_id=DELIVERED,
        asked_in_round=1,
        asked_of=ANN,
        item_ids=(order.items[0].item_id,),
        new_item_ids=("x",),
        payment_method_id="card",
        amount=Decimal(0),
    )
    assert guard.objection(wish, CUSTOMERS[0], order, confirmed=True, rules=rules) == "the order is delivered"


def test_a_tenants_rule_may_ask_for_more(tmp_path: Path) -> None:
    (tmp_path / "strict.toml").write_text(STRICT)
    rule = rules_of_tenants({"acme": tmp_path / "strict.toml"})["acme"][ActionKind.CANCEL_PENDING_ORDER]
    assert rule.needs == (Detail.CANCEL_REASON, Detail.ADDRESS)
    assert dict(rule.checks) == {Check.ONCE: ("once",)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("cancel_pending_order", "cancel_everything"), r"strict.toml: rules.0.action"),
        (('needs = ["cancel_reason", "address"]', "needs = []"), "cannot do without the needs cancel_reason"),
        (('amount = "paid"', 'amount = "nothing"'), 'amount = "paid"'),
        (("once = [", "twice = ["), "checks"),
        (("words =", "wrods ="), "rules.0"),
        (("[[rules]]", "[[rule]]"), r"holds no \[\[rules\]\]"),
        (("[[rules]]", "[[rules"), "is no TOML"),
        ((STRICT, STRICT * 2), "two rules for cancel_pending_order"),
    ],
)
def test_a_wrong_file_is_refused_and_says_what_is_wrong(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    (tmp_path / "strict.toml").write_text(STRICT.replace(*change))
    with pytest.raises(Misconfigured, match=why):
        read_rules(tmp_path / "strict.toml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"absent.toml: No such file"):
        read_rules(tmp_path / "absent.toml")


def test_the_setting_names_a_file_for_each_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_AGENTS__RULES", '{"acme": "/etc/acme.toml"}')
    assert read_settings().agents.rules == {"acme": Path("/etc/acme.toml")}
