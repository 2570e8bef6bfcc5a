import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agents.lookup import Lookup
from agents.triage import Triage
from contracts.errors import Misconfigured
from contracts.events import Event
from contracts.ports import ChatModel
from contracts.ticket import Step, Ticket
from evals.cases import evaluate
from evals.desks import Staff, usual_staff
from evals.gate import Verdict, compare
from evals.rows import read_rows
from evals.running import EvalBroken
from state.shop import MemoryShop
from tests.unit.evals.kit import RUG, case, write_cases, write_shop


@dataclass(frozen=True)
class TellsNothing:
    """Lookup that finds no order any more."""

    usual: Lookup

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        nameless = tuple(r.model_copy(update={"order_refs": ("#W0000000",)}) for r in ticket.rounds)
        return await self.usual.handle(ticket.model_copy(update={"rounds": nameless}), event)


def forgetful(model: ChatModel, shop: MemoryShop) -> Staff:
    usual = dict(usual_staff(model, shop))
    lookup = usual["lookup"]
    assert isinstance(lookup, Lookup)
    return usual | {"lookup": TellsNothing(lookup)}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


async def test_cases_are_right_by_kind_and_cost_is_told(tmp_path: Path, shop: Path) -> None:
    wrong = case("c2", orders=[])
    scores = await evaluate(write_cases(tmp_path / "cases.jsonl", case("c1"), wrong), shop)
    assert scores.right == {"lookup_by_id/c1": 1.0, "lookup_by_id/c2": 0.0}
    assert scores.figures["per_kind"] == {"lookup_by_id": {"n": 2, "right": 0.5, "leaks": 0}}
    assert (scores.figures["right"], scores.figures["leaks"], scores.figures["not_one_outcome"]) == (0.5, 0, 0)
    assert scores.figures["calls_per_ticket"] == 1  # triage's; lookup needs none
    assert scores.figures["unpaid"] == 0
    assert scores.notes == ("c2 (lookup_by_id): orders differ from gold",)


async def test_a_leak_in_any_payload_counts(tmp_path: Path, shop: Path) -> None:
    secret = {"order_id": RUG, "tracking_ids": [], "items": ["Teapot"], "status": "delivered"}
    leaky = case("c1", must_not_reveal=secret)  # the reply names the teapot
    scores = await evaluate(write_cases(tmp_path / "cases.jsonl", leaky), shop)
    assert scores.figures["leaks"] == 1
    assert scores.right == {"lookup_by_id/c1": 0.0}


async def test_an_agent_made_worse_turns_the_gate_red(tmp_path: Path, shop: Path) -> None:
    file = write_cases(tmp_path / "cases.jsonl", *(case(f"c{n}") for n in range(30)))
    before = await evaluate(file, shop)
    after = await evaluate(file, shop, staff_of=forgetful)
    assert compare(before, before).verdict is Verdict.PASS
    assert compare(after, before).verdict is Verdict.FAIL
    assert compare(before, after).verdict is Verdict.PASS


async def test_a_prompt_that_lost_a_label_turns_the_gate_red(tmp_path: Path, shop: Path) -> None:
    """The stand-in chooses among the labels that it is told of."""

    def ill_told(model: ChatModel, shop: MemoryShop) -> Staff:
        usual = dict(usual_staff(model, shop))
        triage = usual["triage"]
        assert isinstance(triage, Triage)
        lines = triage.prompt.text.splitlines()
        without = "\n".join(line for line in lines if "`order_status`" not in line)
        assert without != triage.prompt.text
        return usual | {"triage": replace(triage, prompt=replace(triage.prompt, text=without))}

    file = write_cases(tmp_path / "cases.jsonl", *(case(f"c{n}") for n in range(30)))
    before = await evaluate(file, shop)
    assert compare(await evaluate(file, shop, staff_of=ill_told), before).verdict is Verdict.FAIL


async def test_a_case_that_breaks_the_agents_gives_no_figures(tmp_path: Path, shop: Path) -> None:
    @dataclass(frozen=True)
    class Broken:
        async def handle(self, ticket: Ticket, event: Event) -> Step:
            raise ValueError("planted")

    def broken(model: ChatModel, shop: MemoryShop) -> Any:
        return {**usual_staff(model, shop), "triage": Broken()}

    with pytest.raises(EvalBroken, match=r"case c1 failed.*planted"):
        await evaluate(write_cases(tmp_path / "cases.jsonl", case("c1")), shop, staff_of=broken)


def test_rows_come_from_a_file_or_from_every_jsonl_file_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"n": 2}) + "\n\n")
    (tmp_path / "a.jsonl").write_text('{"n": 1, "text": "one\u2028line"}\n')
    (tmp_path / "README.md").write_text("no data")
    assert [row["n"] for row in read_rows(tmp_path)] == [1, 2]
    assert [row["n"] for row in read_rows(tmp_path / "b.jsonl")] == [2]


def test_data_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n[\n')
    with pytest.raises(Misconfigured, match=r"a\.jsonl line 2"):
        read_rows(tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(Misconfigured, match="holds no rows"):
        read_rows(tmp_path)
