"""Replays of a running system's history: nothing differs while nothing is changed, and what is changed shows."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agents.prompts import Prompt, load_prompt, parse_prompt
from bus.window import Bound
from contracts.errors import Misconfigured, SupportError
from contracts.topics import REASONING, TICKETS
from evals.support_cases import Case
from ops.demo.shop import demo_shop
from ops.demo.tickets import sample_tickets
from ops.replay.page import as_html
from ops.replay.report import Report
from ops.replay.service import Candidate, Window, replay, replay_ticket
from ops.settings import Settings, read_settings
from state.shop_files import read_export
from tests.system.house import SHARED, House, support_cases
from tests.system.in_memory import Oracle, differing
from tests.system.kit import AGENTS, until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]

ALL = Window(TICKETS.name, Bound(), Bound(latest=True))
UNCHANGED = Candidate()
NO_ORDER_IS_CANCELLED = """
[[rules]]
action = "cancel_pending_order"
statuses = []
words = ["cancel"]
statement = "No order is cancelled."
needs = ["cancel_reason"]
amount = "paid"
checks = {}
"""


def settings_of(house: House, agents: Mapping[str, object] | None = None) -> Settings:
    """Those of the system's workers."""
    at = house.system.environment
    return read_settings(
        {
            "kafka": {"bootstrap_servers": at["SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS"]},
            "postgres": {"dsn": at["SWITCHYARD_POSTGRES__DSN"]},
            "redis": {"url": at["SWITCHYARD_REDIS__URL"]},
            "llm": {"standin_url": house.system.standin_url},
            "agents": agents or {},
        }
    )


async def with_history(house: House) -> Bound:
    """Let every sample ticket and its follow-ups come to their outcomes; returns what lies between the two."""
    tickets = sample_tickets()
    await house.system.start_workers((*AGENTS, "review"))
    await house.publish_tickets(*(ticket.first for ticket in tickets))
    await house.until_outcomes(len(tickets))
    between = Bound(time=datetime.now(UTC))
    replied = [ticket for ticket in tickets if ticket.then]
    await house.publish_tickets(*(ticket.then[0] for ticket in replied))
    await house.until_outcomes(len(tickets) + len(replied))
    await house.until_at_rest()
    await until_reviewed(house.pool)
    return between


async def until_reviewed(pool: asyncpg.Pool) -> None:
    async def reviewed() -> bool:
        return bool(
            await pool.fetchval(
                "SELECT (SELECT count(*) FROM emitted WHERE topic = 'support.review.v1')"
                " = (SELECT count(*) FROM inbox WHERE group_name = 'review')"
            )
        )

    await until(reviewed, "every review being noted")


async def everything(pool: asyncpg.Pool) -> dict[str, str]:
    """A digest of each live table."""
    names = await pool.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        " AND tablename NOT IN ('leases', 'workers', 'worker_reports')"  # what workers tell of themselves
    )
    return {
        name: await pool.fetchval(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM public.{name} AS t")
        for name in (row["tablename"] for row in names)
    }


def told(report: Report) -> str:
    """What did not come out the same, for a failing test."""
    wrong = [one for one in report.as_document()["tickets"] if one["status"] != "same"]
    return json.dumps(wrong[:3], indent=1, default=str)[:4000]


async def test_unchanged_agents_decide_everything_again_as_they_did_and_nothing_live_is_touched(house: House) -> None:
    await with_history(house)
    before, calls = await everything(house.pool), len(house.system.calls())
    report = await replay(ALL, UNCHANGED, None, settings_of(house))
    assert report.totals == {"same": len(sample_tickets()), "different": 0, "missing": 0, "failed": 0, "unseeded": 0}, (
        told(report)
    )
    acted = [one for ticket in report.tickets for one in ticket.decisions if one.new and one.new["actions"]]
    assert acted, "actions are carried out in the shadow"
    assert await everything(house.pool) == before
    assert len(house.system.calls()) == calls
    assert await house.pool.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'replay%'") == 0
    assert report.elapsed_s < report.lived_s * 5

    follow_ups = await replay(Window(REASONING.name, Bound(), Bound(latest=True)), UNCHANGED, None, settings_of(house))
    assert follow_ups.totals["same"] == len(follow_ups.tickets) > 0, told(follow_ups)


async def test_a_changed_rule_differs_for_exactly_the_tickets_that_it_concerns(house: House, tmp_path: Path) -> None:
    first_messages = Window(TICKETS.name, Bound(), await with_history(house))
    unchanged = await replay(first_messages, UNCHANGED, None, settings_of(house))
    assert unchanged.totals["same"] == len(sample_tickets()), told(unchanged)

    (tmp_path / "never.toml").write_text(NO_ORDER_IS_CANCELLED)
    strict = settings_of(house, {"rules": {"default": tmp_path / "never.toml"}})
    report = await replay(first_messages, UNCHANGED, None, strict)
    could_be_cancelled = await house.pool.fetch(
        "SELECT ticket_id FROM emitted WHERE convert_from(value, 'UTF8')::jsonb"
        """ @? '$ ? (@.round == 1).assessment[*] ? (@.action == "cancel_pending_order" && @.eligible == true)'"""
    )
    differing = {one.ticket_id: one for one in report.tickets if one.status == "different"}
    assert report.is_complete, told(report)
    assert set(differing) == {row["ticket_id"] for row in could_be_cancelled} != set(), told(report)

    changed = next(one for one in differing.values() if "disposition" in one.decisions[0].changed)
    old, new = changed.decisions[0].old, changed.decisions[0].new
    assert changed.differences[0].group == "reasoning"
    assert old is not None
    assert new is not None
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"ticket_id": changed.ticket_id, "disposition": old["disposition"]}))
    judged = await replay(first_messages, UNCHANGED, gold, strict)
    assert judged.gold is not None
    assert judged.gold.regressions == (changed.ticket_id,)
    assert changed.ticket_id in as_html(judged)


async def test_a_changed_prompt_is_a_loud_miss_and_with_a_model_a_budget_bounds_it(
    house: House, tmp_path: Path
) -> None:
    await with_history(house)
    settings, prompt = settings_of(house), tmp_path / "mine.md"
    shipped = load_prompt("reasoning")
    prompt.write_text(f"---\nname: reasoning\ntier: {shipped.tier}\n---\nBe kind.\n{shipped.text}\n")
    asked = {
        row["ticket_id"]
        for row in await house.pool.fetch("SELECT DISTINCT ticket_id FROM model_calls WHERE agent = 'reasoning'")
    }
    report = await replay(ALL, Candidate(prompt=prompt), None, settings)
    missing = [one for one in report.tickets if one.status == "missing"]
    assert not report.is_complete
    assert {one.ticket_id for one in missing} >= asked != set()
    assert "the nearest request" in missing[0].missing
    assert "system from line 1 on" in missing[0].missing

    calls = len(house.system.calls())
    live = await replay(ALL, Candidate(prompt=prompt, live_usd=Decimal(5)), None, settings)
    assert live.is_complete, told(live)
    assert sum(one.live_calls for one in live.tickets) == len(house.system.calls()) - calls > 0

    poor = await replay(ALL, Candidate(prompt=prompt, live_usd=Decimal(0)), None, settings)
    assert poor.totals["failed"] >= len(asked)
    assert all("--live-budget" in one.problem for one in poor.tickets if one.problem)


async def test_one_ticket_is_run_again_from_a_step_on_by_the_command_line(house: House) -> None:
    await with_history(house)
    house.system.environment["SWITCHYARD_LLM__STANDIN_URL"] = house.system.standin_url
    ticket_id = next(str(ticket.first["ticket_id"]) for ticket in sample_tickets() if ticket.then)
    whole = await replay_ticket(ticket_id, "1", UNCHANGED, settings_of(house))
    code, printed = await house.system.run("ticket", ticket_id, "--replay-from", "2", "--json")
    assert code == 0, printed
    document: dict[str, Any] = json.loads(printed.splitlines()[-1])
    assert document["totals"]["same"] == 1, document
    assert document["steps"] == sum(one.steps for one in whole.tickets) - 1
    with pytest.raises(Misconfigured, match="has no step 99; its steps are 1 triage TicketSubmitted"):
        await replay_ticket(ticket_id, "99", UNCHANGED, settings_of(house))


EVERY = int(os.environ.get("SWITCHYARD_TEST_EVERY_CASE", "5"))  # with 1 all 485: some ten minutes


async def with_the_cases(house: House, *copies: str) -> tuple[list[Case], Bound]:
    """Let support cases come to their outcomes, then copies of them; returns the cases and what lies between."""
    cases = (await support_cases(house))[::EVERY]
    await house.system.start_workers((*AGENTS, "review"))
    published = 0
    for suffix in ("", *copies):
        if published == len(cases):
            between = Bound(time=datetime.now(UTC))
        await house.publish(*((case.id + suffix, a_copy(case, suffix).as_record()) for case in cases))
        published += len(cases)
        await house.until_outcomes(published, 240)
    await house.until_at_rest()
    await until_reviewed(house.pool)
    return cases, between


def a_copy(case: Case, suffix: str) -> Case:
    return replace(case, id=case.id + suffix, ticket={**case.ticket, "ticket_id": case.id + suffix})


def without_a_label(file: Path) -> Prompt:
    """The prompt of triage, but that it does not know of cancelled orders."""
    shipped = load_prompt("triage")
    kept = [line for line in shipped.text.splitlines() if not line.startswith("- `cancel_order`")]
    text = f"---\nname: triage\ntier: {shipped.tier}\n---\n" + "\n".join(kept)
    file.write_text(text)
    return parse_prompt(text, str(file))


def ids_of(report: Report, status: str) -> set[str]:
    return {one.ticket_id for one in report.tickets if one.status == status}


@pytest.mark.timeout(1200)
async def test_of_the_support_cases_exactly_those_differ_that_a_change_concerns_and_unchanged_none(
    house: House, tmp_path: Path
) -> None:
    cases, between = await with_the_cases(house, "-b", "-c")
    unchanged = await replay(ALL, UNCHANGED, None, settings_of(house))
    assert unchanged.totals["same"] == len(unchanged.tickets) == 3 * len(cases), told(unchanged)

    export = read_export(SHARED / "data" / "retail_db") if SHARED.is_dir() else demo_shop()
    first, usual = Window(TICKETS.name, Bound(), between), Oracle(export)
    candidate = Candidate(prompt=tmp_path / "triage.md", live_usd=Decimal(20))
    concerned = await differing(cases, usual, Oracle(export, prompt=without_a_label(tmp_path / "triage.md")))
    report = await replay(first, candidate, None, settings_of(house))
    assert ids_of(report, "different") == concerned != set(), told(report)
    assert report.totals["same"] == len(cases) - len(concerned), told(report)

    recorded = await replay(first, replace(candidate, live_usd=None), None, settings_of(house))
    assert ids_of(recorded, "missing") == {case.id for case in cases}, "an answer to another prompt is no answer"

    (tmp_path / "never.toml").write_text(NO_ORDER_IS_CANCELLED)
    concerned = await differing(cases, usual, Oracle(export, rules=tmp_path / "never.toml"))
    strict = settings_of(house, {"rules": {"default": tmp_path / "never.toml"}})
    report = await replay(first, UNCHANGED, None, strict)
    assert ids_of(report, "different") == concerned != set(), told(report)
    assert report.totals["same"] == len(cases) - len(concerned), told(report)


LIMITS = {"money_limit_usd": 1}
BUDGETS = {"agent": {"tokens": 9_000}}


async def with_people_clocks_and_budgets(house: House) -> None:
    """A history of what no code decides: a person, deadlines before and after triage, a budget that is spent."""
    house.system.environment["SWITCHYARD_LLM__BUDGETS"] = json.dumps(BUDGETS)
    house.system.environment["SWITCHYARD_AGENTS__MONEY_LIMIT_USD"] = str(LIMITS["money_limit_usd"])
    customers = {customer.user_id: customer.email for customer in demo_shop().customers}
    orders = {customers[order.user_id]: order for order in demo_shop().orders if order.status == "pending"}
    asked = [
        {"from_email": email, "body": f"Please cancel order {order.order_id}, I no longer need it."}
        for email, order in orders.items()
    ]
    await house.system.start_workers(("triage", "effects"))
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    await house.publish_tickets(
        asked[0] | {"ticket_id": "t-late", "deadline": "2026-01-01T00:00:00Z"},
        asked[1] | {"ticket_id": "t-soon", "deadline": soon},
    )
    await house.until_outcomes(2)
    await house.system.start_workers(("lookup", "reasoning", "review"))
    await house.publish_tickets(*(ticket | {"ticket_id": f"t-{n}"} for n, ticket in enumerate(asked)))
    await house.until_outcomes(2 + len(asked))
    await until_reviewed(house.pool)
    review = await house.pool.fetchval(
        "SELECT review_id FROM reviews WHERE request ->> 'reason' = 'the amount is above the limit' ORDER BY 1 LIMIT 1"
    )
    code, printed = await house.system.run("review", "approve", review, "--by", "mia", "--json")
    assert code == 0, printed
    await house.until_outcomes(3 + len(asked))
    await house.until_at_rest()
    await until_reviewed(house.pool)


async def test_what_people_clocks_and_budgets_decided_is_taken_as_it_was(house: House) -> None:
    await with_people_clocks_and_budgets(house)
    outcomes = [outcome for came in house.seen.values() for outcome in came]
    assert Counter(one["type"] for one in outcomes)["TicketTimedOut"] == 2
    assert any(one["decided_by"] == "mia" for one in outcomes)
    denied = await house.pool.fetchval("SELECT count(*) FROM recordings WHERE request_digest LIKE 'denied/%'")
    assert 0 < denied < len(outcomes)
    report = await replay(ALL, UNCHANGED, None, settings_of(house, LIMITS))
    assert report.totals["same"] == len(report.tickets) == len(house.seen), told(report)


async def test_each_option_narrows_or_refuses_what_is_replayed(house: House, tmp_path: Path) -> None:
    await with_history(house)
    settings, ids = settings_of(house), sorted(house.seen)
    [alone] = (await replay(replace(ALL, ticket_id=ids[0]), UNCHANGED, None, settings)).tickets
    assert (alone.ticket_id, alone.status) == (ids[0], "same")
    every = await replay(replace(ALL, tenant_id="default"), UNCHANGED, None, settings)
    assert every.totals["same"] == len(ids)
    versions = {d.old["agent_version"] for one in every.tickets for d in one.decisions if d.old}
    assert (await replay(ALL, Candidate(agent_version=min(versions)), None, settings)).totals["same"] == len(ids)

    calls = len(house.system.calls())
    haiku = Candidate(model="anthropic:claude-haiku-4-5", live_usd=Decimal(5))
    other = await replay(replace(ALL, ticket_id=ids[0]), haiku, None, settings)
    asked = house.system.calls()[calls:]
    assert {call["model"] for call in asked} == {"claude-haiku-4-5"}
    assert (other.totals["same"], other.tickets[0].live_calls) == (1, len(asked)), told(other)

    (tmp_path / "nobodys.md").write_text("---\nname: nobody\ntier: fast\n---\nText.")
    for window, candidate, sentence in (
        (replace(ALL, ticket_id="nobodys"), UNCHANGED, "no record of ticket nobodys lies between --from and --to"),
        (replace(ALL, tenant_id="nobodys"), UNCHANGED, "no record of tenant nobodys lies between"),
        (
            replace(ALL, start=Bound(latest=True)),
            UNCHANGED,
            "no record lies between --from and --to in support.tickets",
        ),
        (replace(ALL, topic="support.nothing.v1"), UNCHANGED, "support.nothing.v1 is no topic that an agent reads"),
        (ALL, Candidate(agent_version="v9"), f"not the agent version v9 but .*{min(versions)}.*check-out"),
        (ALL, Candidate(model="openai:gpt-5.4-mini"), "--model openai:gpt-5.4-mini needs --live-model"),
        (ALL, Candidate(model="mini", live_usd=Decimal(1)), "should look like anthropic:NAME or openai:NAME"),
        (ALL, Candidate(prompt=tmp_path / "none.md"), "none.md: No such file"),
        (ALL, Candidate(prompt=tmp_path / "nobodys.md"), "is for the agent 'nobody'; the agents are triage"),
    ):
        with pytest.raises(SupportError, match=sentence):
            await replay(window, candidate, None, settings)


async def test_the_command_fails_on_a_difference_and_says_what_it_cannot_do_in_a_sentence(
    house: House, tmp_path: Path
) -> None:
    between = (await with_history(house)).time
    assert between is not None
    at = house.system.environment
    at["SWITCHYARD_LLM__STANDIN_URL"] = house.system.standin_url
    (tmp_path / "never.toml").write_text(NO_ORDER_IS_CANCELLED)
    firsts = ("replay", TICKETS.name, "--from", "earliest", "--to", between.isoformat())
    at["SWITCHYARD_AGENTS__RULES"] = json.dumps({"default": str(tmp_path / "never.toml")})
    page = tmp_path / "report.html"
    assert (await house.system.run(*firsts, "--html", str(page)))[0] == 0
    code, printed = await house.system.run(*firsts, "--fail-on-diff")
    assert (code, "differ from reasoning on ReasoningRequested" in printed) == (1, True), printed
    assert "differ from" not in page.read_text()
    assert "Where they begin to differ" in page.read_text()
    del at["SWITCHYARD_AGENTS__RULES"]
    assert (await house.system.run(*firsts, "--fail-on-diff"))[0] == 0

    for changes, arguments, wanted, sentence in (
        ({}, ("--from", "yesterday"), 2, "--from 'yesterday' is none of: earliest, latest"),
        ({}, ("--from", "earliest", "--to", "2026-13-01"), 2, "--to '2026-13-01' is none of"),
        ({"SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, ("--from", "earliest"), 1, "Kafka"),
        (
            {"SWITCHYARD_POSTGRES__DSN": "postgresql://postgres@127.0.0.1:1/none"},
            ("--from", "earliest"),
            1,
            "PostgreSQL",
        ),
    ):
        before = dict(at)
        at.update(changes)
        code, printed = await house.system.run("replay", TICKETS.name, *arguments)
        at.clear()
        at.update(before)
        assert (code, len(printed.splitlines())) == (wanted, 1), printed
        assert sentence in printed
