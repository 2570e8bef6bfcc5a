"""A group of a running system rewound by the command line: its workers leave and return, nothing happens twice."""

import json
from collections import Counter

import pytest

from tests.system.house import House
from tests.system.scenarios import asking, command, paid, replies, rewound_under_load

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

TICKETS = 60


async def test_set_back_to_the_beginning_under_load_a_group_pays_no_model_and_does_nothing_again(house: House) -> None:
    rewound = await rewound_under_load(house, tickets=TICKETS)
    assert rewound["read_again"] >= TICKETS


async def test_again_has_every_ticket_decided_anew_and_tells_nobody_the_same_twice(house: House) -> None:
    await house.system.start_workers(("triage", "lookup", "effects"))
    await house.publish_tickets(*asking("old", TICKETS))
    await house.until_outcomes(TICKETS)
    await house.until_at_rest()
    replies_before, ended = await replies(house, "old"), Counter(one["disposition"] for [one] in house.seen.values())
    would = await command(
        house, "rewind", "triage", "--to", "earliest", "--dry-run", "--again", "--reason", "a better prompt"
    )
    again = would["rounds"]["again"]
    assert would["rounds"] == {"again": ended["answered"], "followed": ended["needs_customer"]}
    assert sum(would["rounds"].values()) == TICKETS
    assert sum(paid(house, "old").values()) == TICKETS
    code, printed = await house.system.run(
        "rewind", "triage", "--to", "earliest", "--dry-run", "--again", "--reason", "x"
    )
    assert (code, "would be sent out of the group for it, and return" in printed) == (0, True)
    assert f"{again} rounds would be decided anew: triage and the agents after it ask their models again" in printed
    about = ("--again", "--by", "mia", "--reason", "a better prompt")
    rewound = await command(house, "rewind", "triage", "--to", "earliest", *about)
    assert rewound["rounds"] == would["rounds"]
    await house.until_outcomes(TICKETS + again)
    await house.until_at_rest()
    assert sum(paid(house, "old").values()) == TICKETS + again
    assert await replies(house, "old") == replies_before
    twice = [found for found in house.seen.values() if len(found) == 2]
    assert (len(twice), {len(found) for found in house.seen.values()} <= {1, 2}) == (again, True)
    assert all({one["round"] for one in found} == {1} for found in twice)
    noted = await house.pool.fetchrow("SELECT asked_by, reason, again, moved_at, rounds FROM rewinds")
    assert list(noted)[:3] == ["mia", "a better prompt", True]
    assert json.loads(noted["rounds"])["again"] == again
    [told] = await command(house, "rewinds", "triage")
    assert (told["by"], told["reason"], told["rounds"]["again"]) == ("mia", "a better prompt", again)
    assert (await house.system.run("rewinds", "lookup"))[1] == "no rewinds\n"


async def test_what_cannot_be_is_said_in_one_sentence(house: House) -> None:
    for arguments, sentence in {
        ("nobody", "--to", "earliest"): "there is no agent 'nobody'; the agents are triage",
        ("triage", "--to", "yesterday"): "'yesterday' is no time; write it like",
        ("effects", "--to", "earliest", "--again", "--reason", "x"): "effects decides nothing anew: what it did stays",
        ("triage", "--to", "earliest", "--partition", "99"): "support.tickets.v1 has no partition 99; it has 0 to 7",
    }.items():
        code, printed = await house.system.run("rewind", *arguments)
        assert (code, len(printed.splitlines())) == (2 if "nobody" in arguments else 1, 1), printed
        assert sentence in printed
    code, printed = await house.system.run("rewind", "triage", "--to", "earliest", "--again")
    assert (code, "say why it is decided anew" in printed) == (2, True)
    house.system.environment["SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:9"
    code, printed = await house.system.run("rewind", "triage", "--to", "earliest")
    assert (code, printed.splitlines()[-1].startswith("switchyard: ")) == (1, True), printed
    assert "Traceback" not in printed
