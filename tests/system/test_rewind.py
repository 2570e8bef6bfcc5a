"""A group of a running system set back to the beginning by the command line: nothing is paid or done twice."""

import json
from collections import Counter

import pytest

from tests.system.house import House
from tests.system.kit import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(240)]

TICKETS = 60


async def was_read_again(house: House) -> bool:
    code, printed = await house.system.run("rewind", "triage", "--to", "earliest", "--dry-run", "--json")
    assert code == 0, printed
    return bool(json.loads(printed)["outlook"]["dropped"] == TICKETS + 1)


async def test_set_back_to_the_beginning_a_group_pays_no_model_and_does_nothing_again(house: House) -> None:
    triage, *_ = await house.system.start_workers(("triage", "lookup", "effects"))
    old = [{"ticket_id": f"old{n}", "body": f"Where is my order? [ticket:old{n}]"} for n in range(TICKETS)]
    await house.publish_tickets(*old)
    await house.until_outcomes(TICKETS)
    await house.until_at_rest()
    code, printed = await house.system.run("rewind", "triage", "--to", "earliest")
    assert (code, len(printed.splitlines())) == (1, 1), printed
    assert "workers of triage are in its group; they must leave it first" in printed
    paid = Counter(call["ticket"] for call in house.system.paid_calls())
    effects = await house.pool.fetch("SELECT * FROM effects ORDER BY effect_key")
    await triage.drain()
    code, printed = await house.system.run("rewind", "triage", "--to", "earliest", "--by", "mia", "--json")
    assert code == 0, printed
    rewound = json.loads(printed)
    assert (rewound["moved"], rewound["outlook"]["dropped"], rewound["outlook"]["anew"]) == (True, TICKETS, 0)
    await house.publish_tickets({"ticket_id": "new", "body": "Where is my order? [ticket:new]"})
    await house.system.start_workers(("triage",))
    await house.until_outcomes(TICKETS + 1)
    await until(lambda: was_read_again(house), "the end of the topic once more")
    await house.until_at_rest()
    after = Counter(call["ticket"] for call in house.system.paid_calls())
    assert {ticket: count for ticket, count in after.items() if ticket != "new"} == paid
    now = await house.pool.fetch("SELECT * FROM effects WHERE ticket_id <> 'new' ORDER BY effect_key")
    assert now == effects
    assert {len(found) for found in house.seen.values()} == {1}
