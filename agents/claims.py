"""Claims: what in a text a customer could act on, and what therefore must come from us and from nobody else."""

import re
from collections.abc import Iterator

_CLAIM = re.compile(
    r"(?P<link>(?:https?|ftp)://\S+|www\.\S+|javascript:\S*|[\w.+-]+@[\w-]+\.\w+|</?[a-z!][^>]*>"
    r"|\b[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|io|info|biz|xyz|ru|cn)\b\S*)"
    r"|\#?W(?P<order>\d{5,})"
    r"|(?:[$€£]|\b(?:usd|eur|gbp)\b)\s?(?P<amount>\d[\d.,]*)"
    r"|(?P<sum>\d[\d.,]*)\s?(?:[$€£]|(?:usd|eur|gbp|dollars?|euros?|pounds?)\b)"
    r"|(?P<cipher>[\w+/=-]{40,})",
    re.IGNORECASE,
)
_NOT_A_LETTER = re.compile(r"[\W\d_]+")
_RUN = 30  # letters that stand in a row in two texts by no chance
_MAX_NAME_CHARS = 80


def claims(text: str) -> Iterator[str]:
    """Links, addresses, order numbers, amounts of money and what no one can read, in a form that can be compared."""
    for match in _CLAIM.finditer(text):
        amount = match["amount"] or match["sum"]
        if amount:
            yield money(amount.rstrip(".,").replace(",", ""))
        elif match["order"]:
            yield f"W{match['order']}"
        else:
            yield match[0].casefold().rstrip(".,;:!?)")


def money(amount: object) -> str:
    """An amount as `claims` tells it."""
    whole, _, part = str(amount).partition(".")
    return f"${whole}.{part.ljust(2, '0')}"


def plain_name(name: str) -> str:
    """A name that somebody else wrote, fit to stand in our replies: one short line without claims."""
    return " ".join(_CLAIM.sub(" ", name).split())[:_MAX_NAME_CHARS].strip() or "item"


def repeats(text: str, instructions: str) -> bool:
    """Whether a run of letters of our instructions stands in a text, read forwards or backwards."""
    ours = letters(instructions)
    runs = {ours[at : at + _RUN] for at in range(len(ours) - _RUN + 1)}
    said = letters(text)
    return any(told[at : at + _RUN] in runs for told in (said, said[::-1]) for at in range(len(told) - _RUN + 1))


def letters(text: str) -> str:
    """The letters of a text alone, in lower case."""
    return _NOT_A_LETTER.sub("", text).casefold()
