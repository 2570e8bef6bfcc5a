"""Which language a text is written in, as far as so few words tell."""

import functools
import re

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_KNOWN = "ar,cs,da,de,en,es,fi,fr,hi,hu,it,ja,ko,nl,no,pl,pt,ro,ru,sv,tr,uk,zh"
_MIN_WORDS = 4  # fewer are taken for English: order words are much alike in many languages
_SURE = 0.9
_NOT_LATIN = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff]")


def language_of(text: str) -> str:
    """The ISO 639-1 code; English for what is too short or too mixed to tell."""
    words = text.split()
    if len(words) < _MIN_WORDS and not _NOT_LATIN.search(text):
        return "en"
    code, share = _identifier().classify(text[:2_000])
    return str(code) if share >= _SURE or _NOT_LATIN.search(text) else "en"


@functools.cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_KNOWN.split(","))
    return identifier
