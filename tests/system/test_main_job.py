"""The main job on real services: tickets published to Kafka come out answered, each once, whatever is killed."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bus.follow import follow
from contracts.topics import TICKETS, dead_letter_topic
from evals.support_cases import judge, score
from ops.demo.tickets import sample_tickets
from tests.system.house import House, support_cases
from tests.system.kit import AGENTS, until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

LANES = 16  # few, so that few calls can be under way in a killed worker
SHARED = Path(os.environ.get("SWITCHYARD_SHARED") or Path(__file__).parents[3] / "shared")


async def test_tickets_and_follow_ups_get_one_outcome_a_round_and_money_moves_once(house: House) -> None:
    tickets = sample_tickets()
    await house.system.start_workers(AGENTS)
    doomed = await house.system.start_workers(("reasoning", "effects"))
    await house.publish_tickets(*(t.first for t in tickets))
    await house.until_outcomes(len(tickets))
    replied = [t for t in tickets if t.then]
    assert replied
    await house.publish_tickets(*(t.then[0] for t in replied))
    for worker in doomed:
        worker.kill()
    await house.until_outcomes(len(tickets) + len(replied))
    await house.until_at_rest()

    rounds = Counter((o["ticket_id"], o["round"]) for found in house.seen.values() for o in found)
    assert set(rounds.values()) == {1}
    assert len(rounds) == len(tickets) + len(replied)
    await _assert_each_effect_once(house)
    acted = [o for found in house.seen.values() for o in found if o["disposition"] == "acted"]
    assert acted, "a confirmed action is carried out"
    for outcome in acted:
        await _assert_done_once(house, outcome["actions"])


async def _assert_done_once(house: House, actions: list[dict[str, Any]]) -> None:
    """The order is as the action leaves it, and what was refunded is what the outcome says."""
    [action] = actions
    order = json.loads(
        await house.pool.fetchval("SELECT document FROM shop_orders WHERE order_id = $1", action["order_id"])
    )
    after = {
        "cancel_pending_order": "cancelled",
        "return_delivered_order_items": "return requested",
        "exchange_delivered_order_items": "exchange requested",
        "modify_pending_order_items": "pending (item modified)",
        "modify_pending_order_payment": "pending",
        "modify_pending_order_address": "pending",
    }
    assert order["status"] == after[action["kind"]]
    if action["kind"] == "cancel_pending_order":
        refunds = [p["amount"] for p in order["payment_history"] if p["transaction_type"] == "refund"]
        assert sum(refunds) == pytest.approx(action["amount"])


async def test_a_killed_worker_of_each_agent_loses_nothing_and_repeats_nothing(house: House) -> None:
    cases = await support_cases(house)
    house.system.environment["SWITCHYARD_AGENTS__LANES"] = str(LANES)
    first = await house.system.start_workers(AGENTS)
    await house.system.start_workers(AGENTS)
    await house.publish(*((case.id, case.as_record()) for case in cases))
    await house.until_outcomes(len(cases) // 2)
    for worker in first:
        worker.kill()
    await house.until_outcomes(len(cases))
    await house.until_at_rest()

    assert {case.id: len(house.seen[case.id]) for case in cases} == {case.id: 1 for case in cases}
    await _assert_each_effect_once(house)
    await _assert_nothing_bought_twice(house)
    verdicts = [judge(case, house.seen[case.id]) for case in cases if case.gold]
    assert not [verdict for verdict in verdicts if verdict.leaks]
    for kind in score(verdicts):
        assert kind.right >= 0.98 * kind.cases, kind


async def _assert_each_effect_once(house: House) -> None:
    commands = await house.pool.fetchval("SELECT count(*) FROM emitted WHERE topic = 'support.effects.v1'")
    effects = await house.pool.fetchval("SELECT count(*) FROM effects")
    assert effects == commands > 0


async def _assert_nothing_bought_twice(house: House) -> None:
    """A paid call is in the journal, once, or was under way in a worker when that was killed."""
    rows = await house.pool.fetch("SELECT event_id, step, result FROM journal")
    assert max(Counter((row["event_id"], row["step"]) for row in rows).values()) == 1
    kept = {json.loads(row["result"])["paid"]["call_id"] for row in rows}
    paid = {call["id"] for call in house.system.paid_calls()}
    assert kept <= paid
    workers_that_ask_models = 2  # of those killed: triage and reasoning
    assert len(paid - kept) <= workers_that_ask_models * LANES


def _bad_records() -> dict[str, tuple[str | None, bytes]]:
    good = {"ticket_id": "x", "body": "where is my order?"}
    return {
        "undecodable bytes": ("bad-1", b"\x80\x81\xff\x00"),
        "bad UTF-8 in a string": ("bad-2", b'{"ticket_id":"bad-2","body":"\xff\xfe"}'),
        "not an object": ("bad-3", b"[1, 2, 3]"),
        "a missing body": ("bad-4", b'{"ticket_id":"bad-4"}'),
        "10,000-deep nesting": (
            "bad-5",
            b'{"ticket_id":"bad-5","body":"x","more":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        ),
        "an empty value": ("bad-6", b""),
        "a key of another ticket": ("bad-7", json.dumps(good).encode()),
        "a ticket id of control characters": (None, b'{"ticket_id":"\\u0000","body":"x"}'),
        "a body that is a number": ("bad-9", b'{"ticket_id":"bad-9","body":7}'),
    }


def _odd_tickets() -> list[dict[str, Any]]:
    return [
        {"ticket_id": "odd-1", "body": ""},
        {"ticket_id": "odd-2", "body": "where is \x00 my order\x00?"},
        {"ticket_id": "odd-3", "body": "where is my order? " + "a" * 1_000_000},
        {"ticket_id": "odd-4", "body": "where is my order?", "tenant_id": "nobody-knows-this-tenant"},
        {"ticket_id": "odd-5", "body": "where is my order?", "unknown_field": {"deep": [1]}},
        {"ticket_id": "odd-6", "body": "🦄" * 2000, "from_email": "x@y" * 500},
        {"ticket_id": "odd-7", "body": "where is my order?", "deadline": "2020-01-01T00:00:00Z"},
        {"ticket_id": "odd-8" * 40, "body": "'; DROP TABLE tickets; -- <script>alert(1)</script>"},
    ]


async def test_bad_input_ends_as_an_outcome_or_as_a_dead_letter_byte_for_byte(house: House) -> None:
    bad, odd = _bad_records(), _odd_tickets()
    await house.system.start_workers(AGENTS)
    async with follow(house.connection, dead_letter_topic(TICKETS.name, "triage"), from_start=True) as letters:
        await house.publish(*bad.values())
        await house.publish(
            *((None if n % 2 else str(t["ticket_id"]), json.dumps(t).encode()) for n, t in enumerate(odd))
        )
        await house.until_outcomes(len(odd))
        await house.until_at_rest()
        found: list[bytes] = []

        async def all_letters() -> bool:
            found.extend(record.value for record in await letters.next(0.1))
            return len(found) >= len(bad)

        await until(all_letters, "the dead letters")
    assert Counter(found) == Counter(value for _, value in bad.values())
    assert {i: len(o) for i, o in house.seen.items()} == {str(t["ticket_id"]): 1 for t in odd}
    [late] = house.seen["odd-7"]
    assert late["type"] == "TicketTimedOut"
    assert all(worker.child.returncode is None for worker in house.system.workers)


async def test_the_same_message_twice_is_one_round_and_another_one_a_follow_up(house: House) -> None:
    await house.system.start_workers(AGENTS)
    first = {"ticket_id": "twice", "from_email": "somebody@example.com", "body": "where is my order?"}
    await house.publish_tickets(first, first, first | {"body": "I mean order #W0000000"}, first)
    await house.until_outcomes(2)
    await house.publish_tickets({"ticket_id": "last", "body": "where is my order?"})
    await house.until_outcomes(3)
    await house.until_at_rest()
    assert [(o["round"], o["disposition"]) for o in house.seen["twice"]] == [
        (1, "needs_customer"),
        (2, "needs_customer"),
    ]


UNUSABLE = ("malformed", "empty", "out_of_set", "huge")
PASSING = {
    "rate_limited": {"times": 1, "retry_after_s": 0.2},
    "server_error": {"times": 2},
    "overloaded": {"times": 1},
    "cut": {"times": 1},
    "slow": {"seconds": 1.5},
}


async def test_an_answer_no_one_can_use_goes_to_a_person_after_one_repair_and_a_passing_fault_to_nobody(
    house: House,
) -> None:
    await house.system.set_faults(
        [{"kind": kind, "text": f"[ticket:{kind}]"} for kind in UNUSABLE]
        + [{"kind": kind, "text": f"[ticket:{kind}]", **how} for kind, how in PASSING.items()]
    )
    await house.system.start_workers(AGENTS)
    kinds = (*UNUSABLE, *PASSING)
    await house.publish_tickets(*({"ticket_id": kind, "body": f"Where is my order? [ticket:{kind}]"} for kind in kinds))
    await house.until_outcomes(len(kinds))
    await house.until_at_rest()

    ends = {kind: [o["disposition"] for o in house.seen[kind]] for kind in kinds}
    assert ends == {k: ["escalated"] for k in UNUSABLE} | {k: ["needs_customer"] for k in PASSING}
    paid = Counter(call["ticket"] for call in house.system.paid_calls())
    assert {kind: paid[kind] for kind in UNUSABLE} == dict.fromkeys(UNUSABLE, 2)
    assert {kind: paid[kind] for kind in PASSING} == dict.fromkeys(PASSING, 1) | {"cut": 2}
    for kind in UNUSABLE:
        assert house.seen[kind][0]["cost_usd"] > 0
