"""The redaction link, outermost of all: what must not leave for a provider is masked, and put back in the answer.

A mask stands for the same words wherever they occur in a prompt, and is derived from the prompt alone: nothing is
stored, and nobody who sees the masked text, in a recording or a cache, can undo it without the ticket.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from stdnum import iban, luhn

from llm.chain import Ask, Link, Reply
from llm.provider import Prompt, Repair

Found = tuple[int, int]
"""Where something begins and ends in a text."""

_CARD = re.compile(r"(?<![\w.])(?:\d[ -]?){12,18}\d(?![\w])")
_CARD_STARTS = re.compile(r"4|5[1-5]|2[2-7]|3[4-9]|6|62|81")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}(?![A-Za-z0-9])", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_PHONE = re.compile(
    r"(?<![\w#])(?:\+|00)\d{1,3}(?:[ .()/-]{0,2}\d){7,12}(?!\w)"
    r"|(?<![\w#-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"
)
_SECRETS = re.compile(
    r"""
    \b(?:sk|pk|rk)-(?:ant-|proj-|live-|test-)?[A-Za-z0-9_-]{16,}          # model providers and payment
    | \b(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{30,}
    | \bxox[abprs]-[A-Za-z0-9-]{10,}
    | \bAIza[A-Za-z0-9_-]{30,}
    | \beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}     # JSON web tokens
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?-----END[ ][A-Z ]*PRIVATE[ ]KEY-----
    | (?<=://)[^\s:/@]{1,64}:[^\s:/@]{1,64}(?=@)                            # in a URL
    """,
    re.VERBOSE | re.DOTALL,
)
_SAID_SECRET = re.compile(
    r"\b(?:password|passwort|passcode|pwd|api[ _-]?key|secret|access[ _-]?token|contraseña|mot de passe)\b"
    r"(?:\s+(?:is|ist|es|est))?\s*[:=]?\s*[\"']?(?P<secret>(?=\S*[\d!@#$%^&*_])[^\s\"',;]{6,128})",
    re.IGNORECASE,
)
_MASK = re.compile(r"\[(?:CARD|IBAN|SECRET|EMAIL|PHONE)_\d+\]")


def _cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD_STARTS.match(digits) and luhn.is_valid(digits) and len(set(digits)) > 1:
            yield match.span()


def _ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        if end := _iban_end(match[0]):
            yield match.start(), match.start() + end


def _iban_end(text: str) -> int | None:
    """How much of a text is an IBAN: words that follow one look like more of it."""
    for end in range(len(text), 14, -1):
        if text[end - 1].isalnum() and iban.is_valid(text[:end]):
            return end
    return None


def _secrets(text: str) -> Iterator[Found]:
    yield from (match.span() for match in _SECRETS.finditer(text))
    yield from (match.span("secret") for match in _SAID_SECRET.finditer(text))


def _all_of(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Found]]:
    return lambda text: (match.span() for match in pattern.finditer(text))


ALWAYS: Mapping[str, Callable[[str], Iterator[Found]]] = {"SECRET": _secrets, "CARD": _cards, "IBAN": _ibans}
BY_SETTING: Mapping[str, Callable[[str], Iterator[Found]]] = {"EMAIL": _all_of(_EMAIL), "PHONE": _all_of(_PHONE)}


def redacted(*, emails: bool = False, phones: bool = False) -> Link:
    """Mask card numbers, IBANs and secrets, and what else is asked for; undo it in the answer."""
    wanted = {"EMAIL": emails, "PHONE": phones}
    recognisers = {**ALWAYS, **{name: find for name, find in BY_SETTING.items() if wanted[name]}}

    async def link(ask_next: Ask, prompt: Prompt) -> Reply:
        masks = Masks(recognisers)
        reply = await ask_next(_masked(prompt, masks))
        return reply.model_copy(update={"text": masks.undone(reply.text)}) if masks.words else reply

    return link


@dataclass(slots=True)
class Masks:
    """The masks of one prompt. A text that has masks of its own already keeps them as words like others."""

    recognisers: Mapping[str, Callable[[str], Iterator[Found]]]
    words: dict[str, str] = field(default_factory=dict)  # by mask

    def masked(self, text: str) -> str:
        """The text with masks in the place of what is found."""
        for name, find in self.recognisers.items():
            pieces, end = [], 0
            for start, stop in sorted(find(text)):
                if start < end or _MASK.fullmatch(text[start:stop]):
                    continue
                pieces += [text[end:start], self._mask(name, text[start:stop])]
                end = stop
            text = "".join([*pieces, text[end:]])
        return text

    def undone(self, answer: str) -> str:
        """An answer, which is JSON, with the words in the place of their masks."""
        return _MASK.sub(lambda found: _in_json(self.words.get(found[0], found[0])), answer)

    def _mask(self, name: str, words: str) -> str:
        for mask, known in self.words.items():
            if known == words:
                return mask
        number = 1 + sum(known.startswith(f"[{name}_") for known in self.words)
        mask = f"[{name}_{number}]"
        self.words[mask] = words
        return mask


def _masked(prompt: Prompt, masks: Masks) -> Prompt:
    request = prompt.request
    content = masks.masked(request.content)
    repair = prompt.repair
    if repair is not None:
        repair = Repair(masks.masked(repair.answer), repair.complaint)
    if not masks.words:
        return prompt
    return replace(prompt, request=replace(request, content=content), repair=repair)


@functools.lru_cache(maxsize=1024)
def _in_json(words: str) -> str:
    return json.dumps(words, ensure_ascii=False)[1:-1]
