"""Judging: a model of the strong tier rates replies by rubrics. It costs, and no gate rests on it."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import mean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext

from agents.quoting import quoted
from contracts.models import CallContext, ModelRequest
from contracts.ports import ChatModel
from contracts.values import Tier
from evals.running import scored
from ops.models import chat_model
from ops.settings import read_settings
from ops.wiring import database

RUBRICS = ("faithfulness", "relevance", "completeness")
_MAX_CHARS = 8_000
_BEST = 5


class ReplyRating(BaseModel):
    """What a judge says of a reply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rating: int = Field(ge=1, le=_BEST)
    reason: str = Field(max_length=500, description="one short sentence")


@dataclass(frozen=True)
class Judged:
    """A reply with what it answers, and what the desk knew."""

    id: str
    message: str
    outcome: Mapping[str, Any]

    def content(self) -> str:
        """The material for the judge; all of it is somebody else's words."""
        facts = {name: self.outcome[name] for name in ("disposition", "lookup", "assessment", "actions")}
        parts = {"ticket": self.message, "order": json.dumps(facts, ensure_ascii=False), "reply": self.outcome["reply"]}
        return "\n".join(quoted(tag, text, max_chars=_MAX_CHARS) for tag, text in parts.items())


@dataclass
class ReplyJudge(Evaluator[Judged, str, None]):
    """Rates a reply by one rubric after the other, each a call; ratings become 0 to 1."""

    model: ChatModel
    rubrics: Mapping[str, str]

    @classmethod
    def with_all_rubrics(cls, model: ChatModel) -> "ReplyJudge":
        """A judge by every rubric of `evals/rubrics`."""
        files = resources.files("evals").joinpath("rubrics")
        return cls(model, {name: files.joinpath(f"{name}.md").read_text(encoding="utf-8") for name in RUBRICS})

    async def evaluate(self, ctx: EvaluatorContext[Judged, str, None]) -> dict[str, EvaluationReason]:
        """A rating with its reason for each rubric."""
        return {name: await self._rated(name, rubric, ctx.inputs) for name, rubric in self.rubrics.items()}

    async def _rated(self, name: str, rubric: str, judged: Judged) -> EvaluationReason:
        request = ModelRequest(tier=Tier.STRONG, system=rubric, content=judged.content(), answer=ReplyRating)
        call = CallContext(
            ticket_id=judged.id,
            tenant_id=str(judged.outcome["tenant_id"]),
            event_id=f"judged/{judged.id}/{judged.outcome['round']}",
            agent="evals",
            step=name,
        )
        answer = (await self.model.ask(request, call)).value
        return EvaluationReason(value=(answer.rating - 1) / (_BEST - 1), reason=answer.reason)


async def rated(replies: Sequence[Judged], judge: ReplyJudge) -> Mapping[str, float]:
    """The mean of each rubric's ratings over these replies; nothing when there are none."""
    if not replies:
        return {}
    cases = [Case[Judged, str, None](name=f"{number}/{one.id}", inputs=one) for number, one in enumerate(replies)]
    dataset = Dataset[Judged, str, None](name="replies", cases=cases, evaluators=[judge])

    async def reply_of(judged: Judged) -> str:
        return str(judged.outcome["reply"])

    report = await scored(dataset, reply_of, at_once=8)
    return {name: mean(float(case.scores[name].value) for case in report.cases) for name in judge.rubrics}


@contextlib.asynccontextmanager
async def strong_model() -> AsyncIterator[ChatModel]:
    """The gateway's strong tier, as the settings of `switchyard run` say: its calls are in the book of calls."""
    settings = read_settings()
    async with database(settings) as pool, chat_model([Tier.STRONG], settings, pool) as model:
        yield model
