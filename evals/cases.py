"""Cases: support cases with exact gold, sent to a running system through Kafka or to the agents in memory."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext

from contracts.events import TicketSubmitted
from contracts.models import ModelRequest
from evals import support_cases
from evals.desks import Conversation, StaffOf, copy_of, usual_staff
from evals.drive import Run, drive
from evals.judging import Judged, ReplyJudge, rated, strong_model
from evals.running import scored
from evals.scores import Scores
from evals.support_cases import KindScore, Verdict, leaks, read_cases, score
from llm.scripted import ScriptedModel
from llm.standin import wit
from ops.settings import read_settings
from ops.wiring import kafka_connection
from state.shop_files import read_export

_A_CALL = Decimal(1)  # what a call costs in memory: enough to tell a round that asked a model from one that did not


@dataclass(frozen=True)
class Came:
    """What came of a case: its outcomes, and all that was emitted where that can be seen."""

    outcomes: Sequence[Mapping[str, Any]]
    emitted: Sequence[Mapping[str, Any]]


@dataclass
class AsGold(Evaluator[support_cases.Case, Came, Verdict]):
    """Whether a case came out as its gold says."""

    def evaluate(self, ctx: EvaluatorContext[support_cases.Case, Came, Verdict]) -> bool:
        """True when nothing differs and nothing leaks."""
        verdict = verdict_on(ctx.inputs, ctx.output)
        return not verdict.problems and not verdict.leaks


async def evaluate(data: Path, shop: Path, *, judge: bool = False, staff_of: StaffOf = usual_staff) -> Scores:
    """Every case to the agents in memory, on a copy of a shop, with the stand-in's wit for a model."""
    export = read_export(shop)

    async def came_of(case: support_cases.Case) -> Came:
        conversation = Conversation(staff_of(_the_wit(), copy_of(export)), case.id)
        await conversation.write(TicketSubmitted.model_validate(case.ticket))
        emitted = [payload.model_dump(mode="json") for payload in conversation.emitted]
        return Came([outcome.model_dump(mode="json") for outcome in conversation.outcomes], emitted)

    figures, verdicts, notes = await _scored(read_cases(data), came_of, judge)
    figures["calls_per_ticket"] = round(float(figures.pop("cost_usd") / _A_CALL) / len(verdicts), 3)
    return Scores("cases", figures, *_told(verdicts, notes))


async def evaluate_running(data: Path, *, suffix: str, timeout_s: float, judge: bool = False) -> Scores:
    """Every case through Kafka to a running system, reached as `switchyard` does, by SWITCHYARD_KAFKA__…"""
    cases = read_cases(data, suffix)
    run = await drive(kafka_connection(read_settings().kafka), cases, timeout_s=timeout_s)

    async def came_of(case: support_cases.Case) -> Came:
        outcomes = run.outcomes.get(case.id, [])
        return Came(outcomes, outcomes)

    figures, verdicts, notes = await _scored(cases, came_of, judge)
    spent = float(figures.pop("cost_usd"))
    money = {"cost_usd": round(spent, 6), "cost_usd_per_ticket": round(spent / len(cases), 6)}
    return Scores("cases", {**figures, **money, **_pace(run)}, *_told(verdicts, notes, suffix))


def verdict_on(case: support_cases.Case, came: Came) -> Verdict:
    """A case's outcomes against its gold, and leaks anywhere in what was emitted."""
    verdict = support_cases.judge(case, came.outcomes)
    return Verdict(case, verdict.problems, tuple(dict.fromkeys([*verdict.leaks, *leaks(case, came.emitted)])))


async def _scored(
    cases: Sequence[support_cases.Case], came_of: Callable[[support_cases.Case], Awaitable[Came]], judge: bool
) -> tuple[dict[str, Any], list[Verdict], list[str]]:
    dataset = Dataset[support_cases.Case, Came, Verdict](
        name="cases", cases=[Case(name=case.id, inputs=case) for case in cases], evaluators=[AsGold()]
    )
    report = await scored(dataset, came_of)
    verdicts = [verdict_on(case.inputs, case.output) for case in report.cases]
    figures = _figures(verdicts, [outcome for case in report.cases for outcome in case.output.outcomes])
    if judge:
        figures["judged"] = await _judged(report.cases)
    wrong = [verdict for verdict in verdicts if verdict.problems or verdict.leaks]
    notes = [f"{v.case.id} ({v.case.kind}): {'; '.join([*v.problems, *v.leaks])}" for v in wrong]
    return figures, verdicts, notes


def _figures(verdicts: Sequence[Verdict], outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kinds = score(verdicts)
    return {
        "n": len(verdicts),
        "right": sum(kind.right for kind in kinds) / len(verdicts),
        "leaks": sum(kind.leaks for kind in kinds),
        "not_one_outcome": len({v.case.id for v in verdicts if any("outcomes" in p for p in v.problems)}),
        "unpaid": sum(not outcome["cost_usd"] for outcome in outcomes) / len(verdicts),
        "per_kind": {kind.kind: _of_kind(kind) for kind in kinds},
        "cost_usd": sum((Decimal(str(outcome["cost_usd"])) for outcome in outcomes), Decimal(0)),
    }


def _of_kind(kind: KindScore) -> dict[str, Any]:
    return {"n": kind.cases, "right": kind.right / kind.cases, "leaks": kind.leaks}


def _told(
    verdicts: Sequence[Verdict], notes: Sequence[str], suffix: str = ""
) -> tuple[dict[str, float], tuple[str, ...]]:
    right = {f"{v.case.kind}/{v.case.id.removesuffix(suffix)}": float(not v.problems and not v.leaks) for v in verdicts}
    return right, tuple(notes[:20])


def _pace(run: Run) -> dict[str, Any]:
    """Tickets per second, and seconds from publish to outcome."""
    waits = sorted(run.seconds.values())
    if not waits:
        return {}
    p95_s = waits[int(len(waits) * 0.95)]
    pace = len(waits) / run.elapsed_s
    return {"tickets_per_s": round(pace, 1), "p50_s": round(statistics.median(waits), 3), "p95_s": round(p95_s, 3)}


async def _judged(cases: Sequence[Any]) -> Mapping[str, float]:
    """The judges' mean ratings of the replies."""
    replies = [
        Judged(case.inputs.id, case.inputs.ticket["body"], outcome)
        for case in cases
        for outcome in case.output.outcomes
        if outcome["reply"]
    ]
    async with strong_model() as model:
        return await rated(replies, ReplyJudge.with_all_rubrics(model))


def _the_wit() -> ScriptedModel:
    def answered(request: ModelRequest[Any]) -> Mapping[str, Any]:
        return wit.answer(request.answer.__name__, request.system, request.content)

    return ScriptedModel({"TriageVerdict": answered, "ReasoningProposal": answered}, cost_usd=_A_CALL)
