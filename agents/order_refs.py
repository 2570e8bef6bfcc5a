"""Order references: the order numbers a customer wrote, in whatever shape people write them."""

import re
import unicodedata

_CURRENCY = r"(?:[$€£¥₹]|\b(?:usd|eur|gbp|inr|rs)\b\.?)"
_CURRENCY_WORD = r"(?:[$€£¥₹]|(?:usd|eur|euros?|gbp|inr|rs|dollars?|dólares|bucks|pounds?|rupees)\b)"
_NOISE = re.compile(
    rf"""
      (?:https?://|www\.)\S{{1,500}}
    | [\w.+-]{{1,80}}@\S{{1,200}}
    | \+\s?\d[\d\s().-]{{6,20}}\d  # a telephone number
    | {_CURRENCY}\s?\d[\d.,]{{0,20}}
    | (?<![\d.,])\d[\d.,]{{0,20}}\s?{_CURRENCY_WORD}
    """,
    re.VERBOSE | re.IGNORECASE,
)

# The words after which an identifier is an order's, common slips included.
_ORDER_WORD = r"""\b(?:orders?|ordered|ordr|oder|oredr|roder|odrer|ordre|ordedr|purchases?|purchaes|purhase|purchse
    |bestellung|bestellnummer|auftrag|pedido|compra|commande)"""
_MARK = r"(?:\s{0,3}(?:(?:number|número|numéro|nummer|num|nr|no|id|ref|reference)\b\.?|[:#n][°º]?(?=\W)|[:#]))"
_AFTER = r"(?:[a-z]{1,4}[-_]?\d{4,}|\d{5}|\d{2,8}-\d{3,})"
_NO_DATE = r"(?!\d{4}[-/]\d\d[-/]\d\d|\d{1,2}[-/]\d{1,2}[-/]\d{2,4})"
_REFERENCE = re.compile(
    rf"""
      (?:(?<![A-Za-z0-9])|(?<=[a-z])(?=W)) \#?\s? w [\s#-]{{0,2}} (?P<shop>\d{{5,}}) (?!\d)
    | (?<!\d) (?P<run>\d{{6,}}) (?!\d)
    | {_ORDER_WORD} {_MARK}{{1,4}} (?:\s{{1,3}}is)? \s{{0,3}} {_NO_DATE} (?P<marked>[a-z]{{0,4}}[-_/]?\d[\w/-]{{2,60}})
    | {_ORDER_WORD} \s{{0,3}} {_NO_DATE} (?P<after>{_AFTER}[\w-]{{0,60}})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SHOP_SHAPE = re.compile(r"[\s#]*(?:w[\s#-]*)?(\d{7})\s*", re.IGNORECASE)


def order_refs(text: str, order_ref: str | None = None) -> tuple[str, ...]:
    """Every order reference in the form field and the text, each once, the field's first.

    Seven digits, with or without `#W`, become `#W1234567`. Any other identifier stays as written: it refers to
    an order we do not know. Money, telephone numbers and addresses are no references.
    """
    field = [_normal(order_ref)] if order_ref and any(map(str.isdigit, order_ref)) else []
    plain = _NOISE.sub(" ", unicodedata.normalize("NFKC", text))
    return tuple(dict.fromkeys([*field, *map(_of_match, _REFERENCE.finditer(plain))]))


def same_order(reference: str, order_id: str) -> bool:
    """Whether a reference means this order, without regard to case, spaces and number signs."""
    return _key(reference) == _key(order_id)


def _of_match(match: re.Match[str]) -> str:
    if digits := match["shop"]:
        return f"#W{digits}"
    return _normal(match["run"] or match["marked"] or match["after"])


def _normal(written: str) -> str:
    text = unicodedata.normalize("NFKC", written).strip()[:100]
    shaped = _SHOP_SHAPE.fullmatch(text)
    return f"#W{shaped[1]}" if shaped else text


def _key(reference: str) -> str:
    return re.sub(r"[\s#]", "", reference).casefold()
