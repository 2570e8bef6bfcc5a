"""The recording link, outermost but for masking: keeps answers for replays, or gives only those."""

from collections.abc import Mapping
from typing import Any

from contracts.errors import BudgetSpent, RecordingMissing
from contracts.model_ports import Recordings
from llm.chain import Ask, Link, Reply
from llm.provider import Prompt

_SHOWN_CHARS = 60
_DENIED = "denied/"


def recorded(recordings: Recordings) -> Link:
    """Keep each answer by the digest of its request, and for which event a budget denied one."""

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        try:
            reply = await ask_next(prompt)
        except BudgetSpent as error:
            key = denial_key(prompt.call.event_id, prompt.digest())
            await recordings.keep(key, prompt.call, prompt.canonical(), str(error).encode())
            raise
        if reply.paid is None:  # from the cache: whoever paid for it has recorded it
            return reply
        await recordings.keep(prompt.digest(), prompt.call, prompt.canonical(), reply.model_dump_json().encode())
        return reply

    return link


def replayed(recordings: Recordings) -> Ask:
    """Give recorded answers, and nothing else: behind it there is no way to a provider.

    Raises RecordingMissing: it names the nearest request that was recorded, and where it differs. BudgetSpent: it
    was denied then.
    """

    async def ask(prompt: Prompt) -> Reply:
        await refuse_denied(recordings, prompt.call.event_id, prompt.digest())
        reply = await recordings.find(prompt.digest())
        if reply is None:
            raise RecordingMissing(await _explained(recordings, prompt))
        return Reply.model_validate_json(reply).model_copy(update={"paid": None})

    return ask


def denial_key(event_id: str, digest: str) -> str:
    """What a budget's no to a request is kept under: another event may ask the same and be answered."""
    return f"{_DENIED}{event_id}/{digest}"


def is_denial(key: str) -> bool:
    """Whether a recording's key is of a denial."""
    return key.startswith(_DENIED)


async def refuse_denied(recordings: Recordings, event_id: str, digest: str) -> None:
    """Raise BudgetSpent where a budget denied this event this request."""
    denial = await recordings.find(denial_key(event_id, digest))
    if denial is not None:
        raise BudgetSpent(denial.decode())


async def _explained(recordings: Recordings, prompt: Prompt) -> str:
    head = f"nothing is recorded for step {prompt.call.step} of {prompt.call.agent}, ticket {prompt.call.ticket_id}"
    nearest = await recordings.nearest(prompt.call)
    if nearest is None:
        return f"{head}; no request of this step is"
    differs = "; ".join(differences(nearest.request, prompt.canonical()))
    return f"{head}; the nearest request, of ticket {nearest.ticket_id}, differs in {differs}"


def differences(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two canonical requests differ, a short line each."""
    names = sorted(recorded.keys() | asked.keys())
    pairs = [(name, recorded.get(name), asked.get(name)) for name in names]
    return [_difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _difference(name: str, before: Any, now: Any) -> str:
    if not (isinstance(before, str) and isinstance(now, str)):
        return f"{name} ({_short(before)} was recorded, now {_short(now)})"
    place = next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now)))
    line = now.count("\n", 0, place) + 1
    return f"{name} from line {line} on ({_short(before[place:])} was recorded, now {_short(now[place:])})"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")
