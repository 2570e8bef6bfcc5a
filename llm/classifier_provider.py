"""The local classifier behind the Provider port: the tier `local`, which costs nothing and answers in milliseconds."""

import asyncio
import json
import re
import uuid
from collections.abc import Sequence

from contracts.errors import ModelRefused, ModelUnavailable
from llm.labelling import Labelled, Labeller
from llm.provider import Completion, Prompt

NAME = "classifier"
_MAX_BATCH = 64
_TICKET = re.compile(r"<ticket>\n(.*)\n</ticket>", re.DOTALL)


class ClassifierProvider:
    """Answers requests for a label. What is asked while it computes is computed together, next, in a thread."""

    def __init__(self, labeller: Labeller, model: str) -> None:
        self._labeller = labeller
        self._model = model
        self._waiting: list[tuple[str, asyncio.Future[Labelled]]] = []
        self._working: asyncio.Task[None] | None = None

    async def complete(self, prompt: Prompt) -> Completion:
        """Label the ticket in the prompt. Raises ModelRefused: the request is for something else than a label."""
        fields = prompt.request.answer.model_fields.keys()
        if not {"label", "confidence"} <= fields:
            raise ModelRefused("the local classifier only labels")
        found = await self._label(_said(prompt.request.content))
        verdict = {
            "label": found.label,
            "confidence": found.confidence,
            "language": found.language,
            "priority": found.priority,
            "others": found.others,
            "reason": f"most like the examples of {found.label}",
        }
        answer = {name: value for name, value in verdict.items() if name in fields}
        return Completion(text=json.dumps(answer), call_id=uuid.uuid4().hex, model=self._model)

    async def _label(self, text: str) -> Labelled:
        labelled: asyncio.Future[Labelled] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, labelled))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await labelled

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
                await self._label_together(batch)
        finally:
            self._working = None

    async def _label_together(self, batch: Sequence[tuple[str, asyncio.Future[Labelled]]]) -> None:
        try:
            found = await asyncio.to_thread(self._labeller.label, [text for text, _ in batch])
        except BaseException as error:
            for labelled in (labelled for _, labelled in batch if not labelled.done()):
                labelled.set_exception(ModelUnavailable(f"the local classifier failed: {type(error).__name__}"))
            raise
        for (_, labelled), one in zip(batch, found, strict=True):
            if not labelled.done():  # whoever asked may have gone
                labelled.set_result(one)


def _said(content: str) -> str:
    match = _TICKET.search(content)
    return match[1] if match else content
