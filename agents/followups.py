"""Follow-ups: whether a message answers what we asked, told by code and never by a model."""

import re
from collections.abc import Sequence
from enum import StrEnum

from agents.guard import missing
from agents.order_refs import same_order
from contracts.ticket import Proposal, Round, Ticket

_MAX_CONSENT_WORDS = 25
_MAX_DETAIL_WORDS = 80
_MAX_ANSWER_WORDS = 8
_MAX_CHARS = 4_000

_QUOTED_LINE = re.compile(
    r"^(?:>|on .{1,200} wrote:|am .{1,200} schrieb\b.{0,200}:|el .{1,200} escribió:|le .{1,200} a écrit ?:)",
    re.IGNORECASE,
)
_QUOTE_TO_THE_END = re.compile(r"^(?:-{3,}|_{5,}|from: )", re.IGNORECASE)
_GREETING = re.compile(r"^(?:(?:hi|hello|hey|dear|hallo|hola|bonjour|salut)(?: (?:there|all|team|again))?\b[\s,.!]*)+")
_YES = re.compile(
    r"^(?:yes|yep|yeah|yup|i (?:hereby )?confirm|confirm(?:ed)?|go ahead|please (?:go ahead|proceed)|proceed"
    r"|ja|jawohl|ich bestätige|bestätigt|sí|si$|confirmo|adelante|oui|je confirme)\b"
)
_NO = re.compile(
    r"^(?:no|nope|nah|please (?:don'?t|do not)|don'?t|do not|never ?mind|leave it|forget it|stop|keep (?:it|the order)"
    r"|nein|non|nicht)\b"
)
_HEDGE = re.compile(
    r"\b(?:but|only|except|unless|if|instead|however|wait|not|don'?t|dont|do not|never|no|nope|cannot|can'?t|maybe"
    r"|perhaps|question|other|another|different|rather|first|also|aber|nur|nicht|kein|doch|erst|pero|solo|sólo"
    r"|mais|seulement|pas|ne)\b|\?|\d"
)
_SECOND_THOUGHT = re.compile(r"\?|\b(?:yes|yeah|yep|confirm|wait|but|instead|ja|sí|oui|aber|pero|mais)\b")
_ORDER_NUMBER = re.compile(r"#?\bw?\d{5,}\b")
_QUESTION = re.compile(
    r"\?|^(?:where|when|what|which|how|why|who|can|could|is|are|do|does|did|has|have|will|would"
    r"|wo|wann|was|wie|warum|dónde|donde|cuándo|cuando|cómo|como|où|quand|comment|pourquoi)\b"
)
_REASONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("ordered by mistake", re.compile(r"\b(?:(?:by|a|my) )?(?:mistake|accident(?:ally)?|accidentally|error|twice)\b")),
    (
        "no longer needed",
        re.compile(
            r"\b(?:no longer (?:need|want)(?:ed)?|(?:don'?t|do not) (?:need|want)|not needed|changed my mind"
            r"|(?:isn'?t|is not|it'?s not) needed)\b(?: (?:it|them|this))?(?: any ?more)?"
        ),
    ),
)


class Consent(StrEnum):
    """What a customer says to a proposal."""

    YES = "yes"
    NO = "no"
    UNCLEAR = "unclear"


def consent(text: str) -> Consent:
    """A clear yes or no in few words; anything hedged, asked or long is unclear."""
    said = _ORDER_NUMBER.sub(" ", _without_reasons(_own_words(text)))
    if len(said.split()) > _MAX_CONSENT_WORDS:
        return Consent.UNCLEAR
    if match := _YES.match(said):
        return Consent.UNCLEAR if _HEDGE.search(said, match.end()) else Consent.YES
    if match := _NO.match(said):
        return Consent.UNCLEAR if _SECOND_THOUGHT.search(said, match.end()) else Consent.NO
    return Consent.UNCLEAR


def cancel_reason(text: str) -> str | None:
    """The one reason the policy knows that the text gives, if it gives exactly one."""
    said = _own_words(text)
    given = [reason for reason, pattern in _REASONS if pattern.search(said)]
    return given[0] if len(given) == 1 else None


def may_answer(proposal: Proposal, round_: Round) -> bool:
    """Whether the one who was asked writes: nobody else can confirm, change or drop a proposal."""
    return bool(round_.from_email) and _same_address(round_.from_email, proposal.asked_of)


def answers_proposal(proposal: Proposal, round_: Round, refs: Sequence[str]) -> bool:
    """Whether a message of the one asked is a yes, a no, or supplies what the proposal lacks."""
    if not may_answer(proposal, round_) or any(_is_another_order(ref, proposal) for ref in refs):
        return False
    said = _own_words(round_.body)
    if consent(round_.body) is not Consent.UNCLEAR or _YES.match(said) or _NO.match(said):
        return True
    supplies = bool(missing(proposal)) and len(said.split()) <= _MAX_DETAIL_WORDS
    return supplies and bool(said) and not _QUESTION.search(said)


def answers_question(ticket: Ticket, round_: Round, refs: Sequence[str]) -> bool:
    """Whether a message of the one asked names an order, or is too short to be about something new."""
    if ticket.question is None:
        return False
    asked = ticket.round(ticket.question.asked_in_round)
    if not _same_address(asked.from_email, round_.from_email):
        return False
    return bool(refs) or 0 < len(_own_words(round_.body).split()) <= _MAX_ANSWER_WORDS


def _is_another_order(ref: str, proposal: Proposal) -> bool:
    """Only what has the shop's shape names an order here: a new address brings numbers of its own."""
    return ref.startswith("#W") and not same_order(ref, proposal.order_id)


def _same_address(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _own_words(text: str) -> str:
    """The text in lower case, without its greeting and the message it quotes."""
    lines = list[str]()
    for line in text[:_MAX_CHARS].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").splitlines():
        if _QUOTE_TO_THE_END.match(line.strip()):
            break
        if not _QUOTED_LINE.match(line.strip()):
            lines.append(line)
    plain = " ".join(" ".join(lines).casefold().split())
    return _GREETING.sub("", plain).strip(" ,.!*\"'")


def _without_reasons(said: str) -> str:
    for _, pattern in _REASONS:
        said = pattern.sub(" ", said)
    return said
