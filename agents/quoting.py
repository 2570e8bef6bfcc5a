"""Quoting: other people's text inside a prompt, so that it cannot pose as ours."""

import re
import unicodedata

_OUR_TAGS = re.compile(r"[<‹〈⟨]\s*/?\s*(?:ticket|policy|passage|order|proposal|desk|reply)\b", re.IGNORECASE)


def quoted(tag: str, text: str, *, max_chars: int) -> str:
    """The text inside `<tag>`, cut, with whatever looks like one of our tags made harmless."""
    plain = unicodedata.normalize("NFKC", text[:max_chars])[:max_chars]
    return f"<{tag}>\n{_OUR_TAGS.sub('[tag', plain)}\n</{tag}>"
