"""Quoting: other people's text inside a prompt, so that it cannot pose as ours."""

import re
import unicodedata

from contracts.ticket import Round

_MAX_NOTE_CHARS = 4_000

_OUR_TAGS = re.compile(
    r"[<‹〈⟨]\s*/?\s*(?:ticket|policy|passage|order|variants|proposal|desk|note|reply)\b", re.IGNORECASE
)


def quoted(tag: str, text: str, *, max_chars: int) -> str:
    """The text inside `<tag>`, cut, with whatever looks like one of our tags made harmless."""
    plain = unicodedata.normalize("NFKC", text[:max_chars])[:max_chars]
    return f"<{tag}>\n{_OUR_TAGS.sub('[tag', plain)}\n</{tag}>"


def colleagues_note(round_: Round) -> list[str]:
    """What the person says who gave the round back, inside `<note>`; nothing where none did."""
    note = round_.person.note if round_.person else ""
    return [quoted("note", note, max_chars=_MAX_NOTE_CHARS)] if note else []
