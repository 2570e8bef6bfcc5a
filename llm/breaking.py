"""The breaker link, next to the provider: asks no model that does not answer, and says so to whoever wants to know."""

import logging
import time
from collections.abc import Iterable

from contracts.errors import (
    ModelOverloaded,
    ModelRateLimited,
    ModelRefused,
    ModelsAway,
    ModelUnavailable,
)
from contracts.model_ports import Breakers, Open, Pass
from llm.chain import Ask, Link, Reply
from llm.provider import Prompt, Target

_log = logging.getLogger(__name__)


class OpenTargets:
    """Which targets were found open in this process, and until when: asking them again before is in vain."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, target: str, state: Pass | Open) -> None:
        """Note how a target's breaker stands."""
        match state:
            case Open(wait_s):
                if target not in self._until:
                    _log.warning("breaker open: %s is left alone for %.1f s", target, wait_s)
                self._until[target] = time.monotonic() + wait_s
            case Pass(probe=False):
                if self._until.pop(target, None) is not None:
                    _log.info("breaker closed: %s answers again", target)

    def wait_s(self, target: Target) -> float:
        """Seconds for which it is left alone; 0: it may be asked."""
        return max(0.0, self._until.get(target.name, 0.0) - time.monotonic())

    def away(self, targets: Iterable[Target]) -> bool:
        """Whether none of these may be asked now."""
        return all(self.wait_s(target) > 0 for target in targets)


def guarded(breakers: Breakers, open_targets: OpenTargets) -> Link:
    """Let a call through while its target answers, or as the one probe whether it does again.

    Raises ModelsAway: the breaker is open, or has opened by what this call met.
    """

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        target, call_id = prompt.at.target.name, prompt.at.call.id
        state = await breakers.ask(target, call_id)
        open_targets.note(target, state)
        if isinstance(state, Open):
            raise ModelsAway(f"{target} is left alone", retry_after_s=state.wait_s)
        try:
            reply = await ask_next(prompt)
        except BaseException as error:
            found = await breakers.tell(target, call_id, answered=_answered(error))
            open_targets.note(target, found)
            if isinstance(found, Open) and _answered(error) is False:
                raise ModelsAway(f"{target} does not answer", retry_after_s=found.wait_s) from error
            raise
        if state.probe:
            open_targets.note(target, await breakers.tell(target, call_id, answered=True))
        return reply

    return link


def _answered(error: BaseException) -> bool | None:
    """Whether a provider that gave this error answers; None: that cannot be said."""
    match error:
        case ModelRateLimited() | ModelRefused():
            return True
        case ModelOverloaded() | ModelUnavailable():
            return False
    return None
