"""Support cases with exact gold: read, published as any producer would, and compared with their outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.rows import read_rows


@dataclass(frozen=True, slots=True)
class Case:
    """One case: the ticket as published, and what must come out of it."""

    id: str
    kind: str
    ticket: Mapping[str, Any]
    gold: Mapping[str, Any]

    def as_record(self) -> bytes:
        """The record's value: plain JSON."""
        return json.dumps(self.ticket).encode()


def read_cases(data: Path, suffix: str = "") -> list[Case]:
    """The cases of a file in the support_cases format, or of a directory's, `suffix` appended to each id."""
    return [_case(row, suffix) for row in read_rows(data)]


def _case(row: Mapping[str, Any], suffix: str) -> Case:
    ticket_id = row["id"] + suffix
    ticket = {"ticket_id": ticket_id, "subject": "", **{k: row[k] for k in ("from_email", "order_ref", "body")}}
    return Case(ticket_id, row["kind"], ticket, row["gold"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an outcome is worth against its gold. `problems` is empty when all is right."""

    case: Case
    problems: tuple[str, ...]
    leaks: tuple[str, ...]


def judge(case: Case, outcomes: Sequence[Mapping[str, Any]]) -> Verdict:
    """Compare a case with every outcome seen for its ticket: there must be exactly one."""
    if len(outcomes) != 1:
        return Verdict(case, (f"{len(outcomes)} outcomes",), ())
    outcome = outcomes[0]
    compare = _eligibility_problems if case.kind.startswith("eligibility_") else _lookup_problems
    return Verdict(case, tuple(compare(case.gold, outcome)), tuple(leaks(case, [outcome])))


def _lookup_problems(gold: Mapping[str, Any], outcome: Mapping[str, Any]) -> Iterable[str]:
    found = outcome["lookup"] or {"outcome": None, "orders": []}
    wanted = "not_found" if gold["outcome"] == "not_owner" else gold["outcome"]
    if found["outcome"] != wanted:
        yield f"outcome {found['outcome']}, gold {wanted}"
    if _by_id(found["orders"]) != _by_id(gold["orders"]):
        yield "orders differ from gold"


def _eligibility_problems(gold: Mapping[str, Any], outcome: Mapping[str, Any]) -> Iterable[str]:
    order_id = gold["order"]["order_id"]
    verdicts = {a["action"]: a for a in outcome["assessment"] if a["order_id"] == order_id}
    verdict = verdicts.get(gold["action"])
    if verdict is None:
        yield f"no assessment of {gold['action']}"
        return
    if verdict["eligible"] != gold["eligible"]:
        yield f"eligible {verdict['eligible']}, gold {gold['eligible']}"
    if gold["policy_quote"] not in verdict["rule"]:
        yield "the rule is not the policy's sentence"
    alternative = gold.get("alternative")
    if alternative and not verdicts.get(alternative, {}).get("eligible"):
        yield f"alternative {alternative} is missing"
    if _by_id((outcome["lookup"] or {}).get("orders", [])) != _by_id([gold["order"]]):
        yield "orders differ from gold"


def _by_id(orders: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, list[str], list[str]]]:
    return {o["order_id"]: (o["status"], list(o["tracking_ids"]), sorted(o["items"])) for o in orders}


def leaks(case: Case, payloads: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Facts of somebody else's order anywhere in what was emitted. Its id is no secret: the customer wrote it."""
    secret = case.gold.get("must_not_reveal")
    if not secret:
        return
    said = json.dumps([{k: v for k, v in payload.items() if k != "ticket_id"} for payload in payloads])
    yield from (str(tracking) for tracking in secret["tracking_ids"] if tracking in said)
    yield from (str(item) for item in secret["items"] if item in said)


@dataclass(frozen=True, slots=True)
class KindScore:
    """How one kind of case fared."""

    kind: str
    cases: int
    right: int
    leaks: int


def score(verdicts: Iterable[Verdict]) -> list[KindScore]:
    """Totals by kind, in the order the kinds first appear."""
    by_kind: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_kind.setdefault(verdict.case.kind, []).append(verdict)
    return [
        KindScore(kind, len(found), sum(not v.problems for v in found), sum(bool(v.leaks) for v in found))
        for kind, found in by_kind.items()
    ]
