"""What waits for a person, on a running system: each decision by the command line, each outcome once."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from contracts.shop import Order
from ops.demo.shop import demo_shop
from tests.system.house import House
from tests.system.kit import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

AGENTS = ("triage", "lookup", "reasoning", "effects", "review")
WANTS_A_PERSON = "I want to talk to a human being."
POLICIES = {
    "hasty": {"after": "PT1S", "then": "close", "reply": "Please call us."},
    "patient": {"after": "PT1S", "then": "tell"},
    "led": {"after": "PT1S", "then": "hand_over", "queue": "leads"},
}


class Letters:
    """Tickets about orders of the demo shop, each of a customer of their own."""

    def __init__(self) -> None:
        shop = demo_shop()
        self._emails = {customer.user_id: customer.email for customer in shop.customers}
        self._orders: Iterator[Order] = iter(shop.orders)
        self._used: set[str] = set()

    def order(self, status: str) -> Order:
        """An order of two pieces or more, of another customer each time."""
        found = next(o for o in self._orders if o.status == status and len(o.items) > 1 and o.user_id not in self._used)
        self._used.add(found.user_id)
        return found

    def ticket(self, ticket_id: str, body: str, order: Order, tenant: str = "default") -> dict[str, Any]:
        """A ticket of the order's customer."""
        return {"ticket_id": ticket_id, "tenant_id": tenant, "from_email": self._emails[order.user_id], "body": body}

    def cancelling(self, ticket_id: str) -> tuple[dict[str, Any], Order]:
        """A ticket that asks for a refund above the limit."""
        order = self.order("pending")
        return self.ticket(ticket_id, f"Please cancel order {order.order_id}, I no longer need it.", order), order


async def command(house: House, *arguments: str) -> Any:
    """The document that a review command prints; it must succeed."""
    code, printed = await house.system.run("review", *arguments, "--json")
    assert code == 0, printed
    return json.loads(printed.splitlines()[-1])


async def review_of(house: House, ticket_id: str) -> str:
    """The open review of a ticket, once the table has it."""
    found: list[dict[str, Any]] = []

    async def waits() -> bool:
        found[:] = await house.pool.fetch(
            "SELECT review_id FROM reviews WHERE ticket_id = $1 AND status = 'open'", ticket_id
        )
        return bool(found)

    await until(waits, f"a review of {ticket_id}")
    return str(found[0]["review_id"])


async def until_resolved(house: House, *ticket_ids: str) -> Sequence[dict[str, Any]]:
    """The outcomes that came last, once each ticket is resolved."""

    async def resolved() -> bool:
        await house.read_outcomes()
        return all(house.seen[ticket_id][-1]["type"] == "TicketResolved" for ticket_id in ticket_ids)

    await until(resolved, f"the end of {', '.join(ticket_ids)}")
    return [house.seen[ticket_id][-1] for ticket_id in ticket_ids]


async def shop_order(house: House, order: Order) -> dict[str, Any]:
    """The order's row as it is now."""
    found = await house.pool.fetchval("SELECT document FROM shop_orders WHERE order_id = $1", order.order_id)
    return dict(json.loads(found))


async def sent(house: House, ticket_id: str) -> list[str]:
    """What the ticket's customer was written, in order."""
    rows = await house.pool.fetch(
        "SELECT command FROM effects WHERE ticket_id = $1 AND kind = 'send_reply' ORDER BY applied_at", ticket_id
    )
    return [json.loads(row["command"])["text"] for row in rows]


async def test_a_person_approves_edits_answers_hands_back_or_is_too_late(house: House) -> None:
    house.system.environment["SWITCHYARD_AGENTS__MONEY_LIMIT_USD"] = "1"
    house.system.environment["SWITCHYARD_REVIEW__TENANTS"] = json.dumps(POLICIES)
    letters = Letters()
    to_approve, approved_order = letters.cancelling("t-approve")
    to_race, raced_order = letters.cancelling("t-race")
    to_give_up, changed_order = letters.cancelling("t-changed")
    edited_order, named_order, sought_order = (
        letters.order("delivered"),
        letters.order("delivered"),
        letters.order("processed"),
    )
    tickets = [
        to_approve,
        to_race,
        to_give_up,
        letters.ticket("t-edit", f"I want to return everything of order {edited_order.order_id}.", edited_order),
        letters.ticket("t-back", WANTS_A_PERSON, named_order),
        letters.ticket("t-answer", WANTS_A_PERSON, sought_order),
        *(letters.ticket(f"t-{tenant}", WANTS_A_PERSON, letters.order("processed"), tenant) for tenant in POLICIES),
    ]
    *_, reviewing = await house.system.start_workers(AGENTS)
    await house.publish_tickets(*tickets)
    await house.until_outcomes(len(tickets))

    await _approve(house, await review_of(house, "t-approve"), approved_order)
    await _edit(house, await review_of(house, "t-edit"), edited_order)
    await _two_at_once(house, await review_of(house, "t-race"), raced_order)
    await _approve_in_vain(house, await review_of(house, "t-changed"), changed_order)
    await _hand_back(house, await review_of(house, "t-back"), named_order)
    await _time_out(house)

    reviewing.kill()  # what is decided while nobody is there is carried out later
    await house.publish_tickets(letters.ticket("t-answer", f"Where is order {sought_order.order_id}?", sought_order))
    await _answer(house, await review_of(house, "t-answer"))

    await house.until_at_rest()
    final = [(o["ticket_id"], o["round"]) for found in house.seen.values() for o in found if _is_final(o)]
    assert set(Counter(final).values()) == {1}
    waiting = await command(house, "list")
    assert sorted(one["ticket_id"] for one in waiting) == ["t-led", "t-patient"]
    dead = await house.pool.fetchval("SELECT count(*) FROM parked_tickets")
    assert dead == 0


def _is_final(outcome: dict[str, Any]) -> bool:
    return bool(outcome["type"] == "TicketResolved")


async def _approve(house: House, review_id: str, order: Order) -> None:
    shown = await command(house, "show", review_id)
    assert shown["approve"]["possible"]
    assert shown["approve"]["does"]["amount_usd"] == float(sum(item.price for item in order.items))
    assert shown["reason"] == "the amount is above the limit"
    await command(house, "approve", review_id, "--by", "mia")
    [outcome] = await until_resolved(house, "t-approve")
    assert (outcome["disposition"], outcome["decided_by"]) == ("acted", "mia")
    assert (await shop_order(house, order))["status"] == "cancelled"
    code, timeline = await house.system.run("ticket", "t-approve")
    assert code == 0
    assert any(" person " in line and "approve" in line and "mia" in line for line in timeline.splitlines())


async def _edit(house: House, review_id: str, order: Order) -> None:
    item = order.items[0].item_id
    await command(
        house,
        *("edit", review_id, "--by", "mia"),
        *("--reply", "Send back the first piece.", "--change", json.dumps({"item_ids": [item]})),
    )
    [outcome] = await until_resolved(house, "t-edit")
    assert outcome["actions"][0]["amount"] == float(order.items[0].price)
    assert (await shop_order(house, order))["return_items"] == [item]
    await house.until_at_rest()
    assert (await sent(house, "t-edit"))[-1] == "Send back the first piece."


async def _two_at_once(house: House, review_id: str, order: Order) -> None:
    decisions = (("approve", review_id, "--by", "mia"), ("answer", review_id, "--reply", "No.", "--by", "ben"))
    ran = await asyncio.gather(*(house.system.run("review", *decision) for decision in decisions))
    assert sorted(code for code, _ in ran) == [0, 1]
    [loser] = [told for code, told in ran if code == 1]
    [outcome] = await until_resolved(house, "t-race")
    winner, did = outcome["decided_by"], {"mia": "approved", "ben": "answered"}[outcome["decided_by"]]
    assert f"cannot be decided any more: {winner} {did} it at" in loser
    assert (await shop_order(house, order))["status"] == ("cancelled" if winner == "mia" else "pending")


async def _approve_in_vain(house: House, review_id: str, order: Order) -> None:
    """The order's rows have changed since the review was asked for."""
    changed = {**await shop_order(house, order), "status": "processed"}
    await house.pool.execute(
        "UPDATE shop_orders SET status = 'processed', document = $2 WHERE order_id = $1",
        order.order_id,
        json.dumps(changed),
    )
    code, told = await house.system.run("review", "approve", review_id, "--by", "mia")
    assert code == 1
    assert f"switchyard: review {review_id} cannot be approved: the order is processed" in told
    await command(house, "answer", review_id, "--reply", "It is on its way already.", "--by", "mia")
    [outcome] = await until_resolved(house, "t-changed")
    assert (outcome["reply"], outcome["actions"]) == ("It is on its way already.", [])


async def _hand_back(house: House, review_id: str, order: Order) -> None:
    note = f"They mean order {order.order_id}."
    await command(house, "hand-back", review_id, "--to", "lookup", "--note", note, "--by", "mia")
    [outcome] = await until_resolved(house, "t-back")
    assert (outcome["agent"], outcome["orders"], outcome["decided_by"]) == ("lookup", [order.order_id], "")


async def _time_out(house: House) -> None:
    """The policies of the three tenants, each carried out once."""
    [closed] = await until_resolved(house, "t-hasty")
    assert (closed["reason"], closed["reply"]) == ("no person decided in time", "Please call us.")

    async def told_and_handed_over() -> bool:
        left = await house.pool.fetchval("SELECT count(*) FROM reviews WHERE due_at < now() AND status = 'open'")
        return left == 0 and len(await sent(house, "t-patient")) == 2

    await until(told_and_handed_over, "the time-outs of the other two")
    assert "patience" in (await sent(house, "t-patient"))[-1]
    assert [one["ticket_id"] for one in await command(house, "list", "--queue", "leads")] == ["t-led"]
    late = await house.pool.fetchval("SELECT count(*) FROM emitted WHERE type = 'ReviewTimedOut'")
    assert late == 3
    code, told = await house.system.run("review", "approve", await _review_id(house, "t-hasty"))
    assert code == 1
    assert "nobody decided in time, and it was closed at" in told


async def _review_id(house: House, ticket_id: str) -> str:
    return str(await house.pool.fetchval("SELECT review_id FROM reviews WHERE ticket_id = $1", ticket_id))


async def _answer(house: House, review_id: str) -> None:
    decided = await command(house, "answer", review_id, "--reply", "Here I am.", "--by", "mia")
    assert decided["status"] == "decided"
    await house.system.start_workers(("review",))

    async def both_rounds_ended() -> bool:
        await house.read_outcomes()
        return {o["round"] for o in house.seen["t-answer"] if o["type"] == "TicketResolved"} == {1, 2}

    await until(both_rounds_ended, "the answer and that to the follow-up", 90)
    [first] = [o for o in house.seen["t-answer"] if o["round"] == 1 and o["type"] == "TicketResolved"]
    assert (first["reply"], first["decided_by"], first["agent"]) == ("Here I am.", "mia", "review")
    shown = await command(house, "show", review_id)
    first_words, then = [said["text"] for said in shown["conversation"]]
    assert first_words == WANTS_A_PERSON
    assert then.startswith("Where is order")
