"""ScriptedModel: the ChatModel for tests of agents. It answers what it was told to, under the gateway's rules."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from contracts.models import AnswerT, CallContext, ModelAnswer, ModelCall, ModelRequest
from llm.asking import ask_and_repair
from llm.chain import Reply
from llm.judge import usable
from llm.provider import Prompt
from llm.schema import title_of

ScriptedAnswer = BaseModel | Mapping[str, Any] | str | Exception
"""A value or a mapping is answered as JSON, a string as it stands (so it may be malformed), an error is raised."""

Script = Sequence[ScriptedAnswer] | Callable[[ModelRequest[Any]], ScriptedAnswer]


class ScriptedModel:
    """Answers by the title of the request's schema: from a list, one a call, or by a function of the request.

    An unusable answer is repaired by the script's next one, as the gateway would.
    """

    def __init__(self, scripts: Mapping[str, Script], *, cost_usd: Decimal = Decimal(0)) -> None:
        self._scripts = {
            title: script if callable(script) else _one_by_one(title, script) for title, script in scripts.items()
        }
        self._cost_usd = cost_usd  # of each call
        self._calls = 0
        self.requests: list[ModelRequest[Any]] = []
        self.contexts: list[CallContext] = []

    async def ask(self, request: ModelRequest[AnswerT], call: CallContext) -> ModelAnswer[AnswerT]:
        """The script's answer, repaired at most once. Raises what the script says."""
        self.requests.append(request)
        self.contexts.append(call)
        return await ask_and_repair(self._reply, request, call, default_timeout_s=60)

    async def _reply(self, prompt: Prompt) -> Reply:
        title = title_of(prompt.request.answer)
        if title not in self._scripts:
            raise LookupError(f"no script for answers titled {title}")
        text = _text(self._scripts[title](prompt.request))
        self._calls += 1
        call = ModelCall(
            call_id=f"scripted-{self._calls}",
            step=prompt.call.step,
            tier=prompt.request.tier,
            provider="scripted",
            model="scripted",
            input_tokens=len(prompt.request.content) // 4,
            output_tokens=len(text) // 4,
            cost_usd=self._cost_usd,
            latency_s=0.0,
            outcome="ok" if usable(text, prompt.request.answer) else "malformed",
        )
        return Reply(text=text, paid=call)


def _one_by_one(title: str, answers: Sequence[ScriptedAnswer]) -> Callable[[ModelRequest[Any]], ScriptedAnswer]:
    left = iter(answers)

    def next_answer(_: ModelRequest[Any]) -> ScriptedAnswer:
        for answer in left:
            return answer
        raise LookupError(f"the script for answers titled {title} is used up")

    return next_answer


def _text(answer: ScriptedAnswer) -> str:
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, str):
        return answer
    if isinstance(answer, BaseModel):
        return answer.model_dump_json()
    return to_json(answer).decode()
