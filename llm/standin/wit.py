"""The stand-in's wit: rules about words, so that the demo answers something sensible without a model.

It sees what a provider sees (the title of the answer's schema, instructions, content) and knows nothing else.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from llm.standin.words import canonical

_TICKET = re.compile(r"<ticket>\n?(.*)</ticket>", re.DOTALL)
_PASSAGE = re.compile(r'<passage id="([^"]*)">\n(.*?)\n</passage>', re.DOTALL)
_ORDER = re.compile(r"<order>(.*?)</order>", re.DOTALL)
_VARIANTS = re.compile(r"<variants>(.*?)</variants>", re.DOTALL)
_REPLY = re.compile(r"<reply>\n?(.*)</reply>", re.DOTALL)
_DESK = re.compile(r"<desk>(\w+)</desk>")
_WORD = re.compile(r"[^\W\d_]+")


def answer(title: str, system: str, content: str) -> dict[str, Any]:
    """Fill the schema of that title from the content. Raises LookupError: there is no wit for it."""
    return _WITS[title](system, content)


@dataclass(frozen=True, slots=True)
class _Rule:
    label: str
    confidence: float
    pattern: re.Pattern[str]


@functools.cache
def _rules() -> tuple[_Rule, ...]:
    lines = resources.files("llm.standin").joinpath("label_rules.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split(maxsplit=2) for line in lines if not line.startswith("#")]
    return tuple(_Rule(label, float(confidence), re.compile(pattern)) for label, confidence, pattern in fields)


_OUT_OF_SCOPE = 0.6
_UNSURE = 0.3


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STOP_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "en": _words("the is my to and of for please where when i have want it you"),
        "de": _words("der die das ist meine mein wo wann ich bitte und nicht eine für mit wurde habe"),
        "es": _words("el la los mi es está dónde donde cuándo por favor quiero y no una pedido hola gracias"),
        "fr": _words("le la les ma mon est où quand je voudrais et pas une vous bonjour merci commande"),
    }
)
_URGENT = re.compile(r"\b(?:fraud\w*|hacked|stolen|danger\w*|injur\w*|fire|lawyer|police)\b", re.IGNORECASE)
_HIGH = re.compile(
    r"\b(?:urgent\w*|asap|immediately|(?:second|third|fourth) time|still (?:no|not|waiting))\b", re.IGNORECASE
)


def _triage(system: str, content: str) -> dict[str, Any]:
    """Chooses among the labels that the instructions name: of others it knows nothing."""
    text = _said(content)
    label, confidence = label_of(text)
    if f"`{label}`" not in system:
        label, confidence = "out_of_scope", _OUT_OF_SCOPE
    priority = "urgent" if _URGENT.search(text) else "high" if _HIGH.search(text) else "normal"
    reason = f"The words point to {label.replace('_', ' ')}."
    return {
        "label": label,
        "confidence": confidence,
        "language": language_of(text),
        "priority": priority,
        "reason": reason,
    }


def label_of(text: str) -> tuple[str, float]:
    """The label of the first rule that fits, and how far the rule is to be trusted."""
    plain = canonical(text)
    for rule in _rules():
        if rule.pattern.search(plain):
            return rule.label, rule.confidence
    return "out_of_scope", _OUT_OF_SCOPE if len(plain.split()) >= 3 else _UNSURE


def language_of(text: str) -> str:
    """The language with most stop words in the text; English when none has any."""
    words = _WORD.findall(text.casefold())
    return max(_STOP_WORDS, key=lambda language: sum(word in _STOP_WORDS[language] for word in words))


def _said(content: str) -> str:
    match = _TICKET.search(content)
    return match[1] if match else content


@dataclass(frozen=True, slots=True)
class _Passage:
    id: str
    text: str
    words: frozenset[str]
    topic: frozenset[str]  # the words of its heading


_DESK_ACTIONS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "cancel_order": (("cancel_pending_order", r""),),
        "change_order": (
            ("modify_pending_order_payment", r"\bpay(?:pal)?\b"),
            ("modify_pending_order_address", r"\baddress\b"),
            ("modify_pending_order_items", r""),
        ),
        "address_change": (("modify_pending_order_address", r""),),
        "return_refund": (
            ("exchange_delivered_order_items", r"^(?!.*\b(?:refund|return|money)\b).*\b(?:exchange|swap)\b"),
            ("return_delivered_order_items", r""),
        ),
    }
)
_WORDS_OF_DESK: Mapping[str, str] = MappingProxyType(
    {
        "cancel_order": "cancel pending order",
        "change_order": "modify change pending order items",
        "address_change": "modify change address pending order",
        "return_refund": "return refund delivered order items",
        "payment_billing": "payment invoice",
        "account": "account",
        "complaint": "complaint review",
        "product_question": "product buy price",
    }
)
_IDLE = _words(
    "about also and any are can could did does for from get had has have help here how its just like may more "
    "need not our please that the their them there they this want was were what when where which who will with "
    "would you your only must should one other some such than then these those out all ref "
)
_MISTAKE = re.compile(r"\bmistake\b|\btwice\b|\bwrong (?:order|parcel)\b")
_NOT_NEEDED = re.compile(
    r"\b(?:no longer|don't|do not|dont|not) (?:\w+ )?(?:need|want|needed|wanted)\b|\bchanged? my mind\b"
)
_ADDRESS = re.compile(
    r"\b(?P<address1>\d{1,5}[a-z]?\s(?!to\b)[\w .'-]+?),\s*"
    r"(?:(?P<address2>(?:apt|apartment|suite|unit|floor)\b[^,]*),\s*)?"
    r"(?P<city>[^\W\d][^\d,]*?),?\s+(?P<state>[A-Z]{2}),?\s+(?P<zip>\d{5}(?:-\d{4})?)"
    r"(?:,\s*(?P<country>[A-Z][A-Za-z ]+))?",
    re.IGNORECASE,
)
_METHODS = (
    ("gift_card", re.compile(r"\bgift ?card\b", re.IGNORECASE)),
    ("paypal", re.compile(r"\bpay ?pal\b", re.IGNORECASE)),
    ("credit_card", re.compile(r"\bcredit ?card\b", re.IGNORECASE)),
)
_INSTEAD_OF = re.compile(r"\b(?:instead of|rather than|not) (?:the |an? )?\w+", re.IGNORECASE)
_MIN_SHARED = 2  # words a passage must share with a question to answer it
_MAX_DRAFT_CHARS = 1_500


def _reason(_: str, content: str) -> dict[str, Any]:
    text, desk = _said(content), _desk(content)
    plain, order = canonical(text), _order(content)
    passages = _passages(content)
    action = _action(desk, plain) if order else None
    ranked = _ranked(passages, plain, desk)
    is_sure = bool(order) if desk in _DESK_ACTIONS else bool(ranked) and ranked[0][0] >= _MIN_SHARED
    return {
        "intent": "act" if action else "explain" if is_sure else "human",
        "action": action,
        "cancel_reason": _cancel_reason(plain),
        "items": _items(order, text),
        "changes": _changes(order, _variants(content), text),
        "refund_to": "gift_card" if _pay_with(text) == "gift_card" else None,
        "pay_with": _pay_with(text),
        "new_address": _address(text),
        "reply_draft": _draft(ranked[0][1]) if ranked else "",
        "citations": [passage.id for _, passage in ranked[:2]],
        "confidence": 0.85 if is_sure else 0.3,
    }


def _rate(_: str, content: str) -> dict[str, Any]:
    """Rates a reply by the words that it shares with the message and the facts."""
    match = _REPLY.search(content)
    said = _content_words(canonical(match[1] if match else ""))
    rest = _content_words(canonical(content[: match.start()] if match else content))
    share = len(said & rest) / len(said) if said else 0.0
    return {"rating": 1 + round(4 * share), "reason": f"Of its words {share:.0%} stand in the material."}


def _action(desk: str, plain: str) -> str | None:
    return next((action for action, sign in _DESK_ACTIONS.get(desk, ()) if re.search(sign, plain)), None)


def _ranked(passages: Sequence[_Passage], plain: str, desk: str) -> list[tuple[int, _Passage]]:
    """Passages with the words they share with the question, most first; those that share none are left out."""
    wanted = _content_words(f"{plain} {canonical(_WORDS_OF_DESK.get(desk, ''))}")
    scored = [(len(wanted & passage.words) + len(wanted & passage.topic), passage) for passage in passages]
    return sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])


def _content_words(plain: str) -> frozenset[str]:
    return frozenset(word for word in plain.split() if len(word) > 2 and word not in _IDLE)


def _cancel_reason(plain: str) -> str | None:
    given = [
        r for r, sign in (("ordered by mistake", _MISTAKE), ("no longer needed", _NOT_NEEDED)) if sign.search(plain)
    ]
    return given[0] if len(given) == 1 else None


def _items(order: Mapping[str, Any], text: str) -> list[str]:
    names = dict.fromkeys(str(item["name"]) for item in order.get("items", []))
    named = [name for name in names if re.search(rf"\b{re.escape(name)}", text, re.IGNORECASE)]
    return [] if re.search(r"\b(?:everything|all of it|whole order|entire order)\b", text, re.IGNORECASE) else named


def _changes(order: Mapping[str, Any], variants: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """The pieces named, or the only one, with those of their options' values that the text wants."""
    every = [str(item["name"]) for item in order.get("items", [])]
    wanted = _INSTEAD_OF.sub(" ", text)
    changes = []
    for name in _items(order, text) or (every if len(every) == 1 else []):
        values = [value for known in variants.get(name, {}).values() for value in known]
        found = [value for value in values if re.search(rf"\b{re.escape(value)}\b", wanted, re.IGNORECASE)]
        changes.extend([{"item": name, "options": found}] if found else [])
    return changes


def _pay_with(text: str) -> str | None:
    """The kind of method that is named last: "from my gift card to PayPal"."""
    named = [(match.start(), kind) for kind, sign in _METHODS for match in sign.finditer(text)]
    return max(named)[1] if named else None


def _address(text: str) -> dict[str, str | None] | None:
    match = _ADDRESS.search(text)
    return {part: value.strip() if value else None for part, value in match.groupdict().items()} if match else None


def _draft(passage: _Passage) -> str:
    return f"Thank you for your question. Our policy says:\n\n{passage.text}"[:_MAX_DRAFT_CHARS]


def _passages(content: str) -> list[_Passage]:
    return [_passage(id_, *body.partition("\n")[::2]) for id_, body in _PASSAGE.findall(content)]


def _passage(id_: str, heading: str, text: str) -> _Passage:
    topic = _content_words(canonical(heading.rsplit(">", 1)[-1]))
    return _Passage(id_, text or heading, words=_content_words(canonical(text)), topic=topic)


def _order(content: str) -> dict[str, Any]:
    return _embedded(_ORDER, content)


def _variants(content: str) -> dict[str, Any]:
    return _embedded(_VARIANTS, content)


def _embedded(pattern: re.Pattern[str], content: str) -> dict[str, Any]:
    """The JSON object between two marks; empty where there is none."""
    match = pattern.search(content)
    try:
        found = json.loads(match[1]) if match else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _desk(content: str) -> str:
    match = _DESK.search(content)
    return match[1] if match else ""


_WITS: Mapping[str, Callable[[str, str], dict[str, Any]]] = MappingProxyType(
    {"TriageVerdict": _triage, "ReasoningProposal": _reason, "ReplyRating": _rate}
)
