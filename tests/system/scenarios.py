"""What ops do to a running system, at any size: dead letters redriven twice at once, a group rewound under load."""

import asyncio
import itertools
import json
import time
from collections import Counter
from typing import Any

from ops.demo.shop import demo_shop
from tests.system.house import House
from tests.system.kit import until

AGENTS = ("triage", "lookup", "effects")


async def command(house: House, *arguments: str, limit_s: float = 60) -> Any:
    """The document that a command prints; it must succeed."""
    code, printed = await house.system.run(*arguments, "--json", limit_s=limit_s)
    assert code == 0, printed[-2000:]
    return json.loads(printed.splitlines()[-1])


def asking(name: str, count: int, words: str = "Where is my order") -> list[dict[str, str]]:
    """Tickets about customers' own orders, and one in three that does not say which."""
    shop = demo_shop()
    emails = {customer.user_id: customer.email for customer in shop.customers}
    orders = itertools.islice(itertools.cycle(shop.orders), count)
    return [
        {
            "ticket_id": f"{name}{n}",
            "from_email": emails[order.user_id],
            "body": f"{words}{f' {order.order_id}' if n % 3 else ''}? [ticket:{name}{n}]",
        }
        for n, order in enumerate(orders)
    ]


def paid(house: House, name: str) -> Counter[str]:
    """How often a model was paid for each ticket of that name."""
    return Counter(call["ticket"] for call in house.system.paid_calls() if call["ticket"].startswith(name))


async def replies(house: House, name: str) -> Counter[str]:
    """How many replies each ticket of that name got."""
    rows = await house.pool.fetch(
        "SELECT ticket_id, count(*) FROM effects WHERE kind = 'send_reply' AND starts_with(ticket_id, $1) GROUP BY 1",
        name,
    )
    return Counter(dict(rows))


async def redriven_twice_at_once(
    house: House, *, letters: int, behind: int, others: int, rate: int, limit_s: float = 120
) -> dict[str, Any]:
    """So many dead letters, some with a record behind, redriven by two jobs at once while other tickets come in.

    Each letter is redriven once; each ticket's rounds come in order, each has one outcome, one reply, and is paid once.
    """
    await house.system.set_faults([{"kind": "refused", "status": 400, "text": "[ticket:sick"}])
    await house.system.start_workers(AGENTS)
    await house.publish_tickets(*asking("sick", letters))
    await house.publish_tickets(*asking("sick", behind, "Please, where is my order"))

    async def all_wait() -> bool:
        queued = "SELECT count(*) FROM parked_records"
        first = "SELECT count(*) FROM parked_tickets WHERE due_at IS NULL"
        return list(await house.pool.fetchrow(f"SELECT ({first}), ({queued})")) == [letters, behind]

    await until(all_wait, "a dead letter of each ticket", limit_s)
    listed = await command(house, "dlt", "list", "triage", "--error", "ModelRefused", "--limit", "1", limit_s=limit_s)
    assert (listed["count"], [one["behind"] for one in listed["fingerprints"]]) == (letters, [behind])
    await house.system.set_faults([])
    began = time.monotonic()
    redrives = [
        command(house, "dlt", "redrive", "triage", "--by", by, "--rate", str(rate), limit_s=limit_s)
        for by in ("mia", "bo")
    ]
    *jobs, _ = await asyncio.gather(*redrives, house.publish_tickets(*asking("well", others)))
    redriven_s = time.monotonic() - began
    fates = sum((Counter(job["counts"]) for job in jobs), Counter[str]())
    assert fates["freed"] == letters
    assert fates.keys() <= {"freed", "elsewhere", "gone"}
    await house.until_outcomes(letters + behind + others, limit_s)
    await house.until_at_rest(limit_s)
    assert await house.pool.fetchval("SELECT count(*) FROM parked_tickets") == 0
    rounds = {ticket["ticket_id"]: 1 for ticket in (*asking("sick", letters), *asking("well", others))}
    rounds |= {ticket["ticket_id"]: 2 for ticket in asking("sick", behind)}
    assert {ticket: [one["round"] for one in found] for ticket, found in house.seen.items()} == {
        ticket: [*range(1, count + 1)] for ticket, count in rounds.items()
    }
    assert await replies(house, "") == rounds
    assert all(count <= rounds[ticket] for ticket, count in paid(house, "").items())  # none for an answer to a question
    return {"fates": dict(fates), "redriven_s": round(redriven_s, 1), "all_s": round(time.monotonic() - began, 1)}


async def rewound_under_load(house: House, *, tickets: int, limit_s: float = 120) -> dict[str, Any]:
    """Triage set back to the beginning with two workers running and as many tickets coming in as it had before.

    No model is paid again and no effect comes anew for what had been handled; each ticket has one outcome.
    """
    await house.system.start_workers((*AGENTS, "triage"))
    await house.publish_tickets(*asking("old", tickets))
    await house.until_outcomes(tickets, limit_s)
    await house.until_at_rest(limit_s)
    paid_before, replies_before = paid(house, "old"), await replies(house, "old")

    async def load() -> None:
        new, at_once = asking("new", tickets), max(1, tickets // 40)
        for first in range(0, tickets, at_once):
            await house.publish_tickets(*new[first : first + at_once])
            await asyncio.sleep(0.1)

    began = time.monotonic()
    move = command(house, "rewind", "triage", "--to", "earliest", "--by", "mia", limit_s=limit_s)
    rewound, _ = await asyncio.gather(move, load())
    moved_s = time.monotonic() - began
    assert (rewound["moved"], len(rewound["workers"])) == (True, 2)
    assert rewound["outlook"]["dropped"] >= tickets
    await house.until_outcomes(2 * tickets, limit_s)

    async def was_read_again() -> bool:
        would = await command(house, "rewind", "triage", "--to", "earliest", "--dry-run", limit_s=limit_s)
        return bool(would["outlook"]["dropped"] == 2 * tickets)

    await until(was_read_again, "the end of the topic once more", limit_s)
    await house.until_at_rest(limit_s)
    assert paid(house, "old") == paid_before
    assert await replies(house, "old") == replies_before
    assert set(paid(house, "new").values()) == set((await replies(house, "new")).values()) == {1}
    assert {len(found) for found in house.seen.values()} == {1}
    back = sum(move["now"] - move["to"] for move in rewound["moves"])
    return {"read_again": back, "new_model_calls": 0, "new_effects": 0, "command_s": round(moved_s, 1)}
