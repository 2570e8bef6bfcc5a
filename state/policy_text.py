"""Cutting a policy into passages that can be quoted and cited."""

import hashlib
import re
from collections.abc import Iterator
from itertools import chain

from contracts.shop import Passage

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t]*#*")
_FENCE = re.compile(r"[ ]{0,3}(```|~~~)")
_LIST_ITEM = re.compile(r"[ \t]*([-*+]|\d+[.)])[ \t]")
_ENDS = ("\n\n", "\n", ". ", " ")  # where a long text is cut, the first of them that does

MAX_PASSAGE_CHARS = 1_200  # about what an embedding model reads


def passages_of(markdown: str) -> tuple[Passage, ...]:
    """The policy's paragraphs under their headings, every sentence verbatim; repeated ones once.

    A list stays with the paragraph that introduces it, up to MAX_PASSAGE_CHARS. The heading names the sections
    above it too.
    """
    passages: dict[str, Passage] = {}
    for heading, paragraphs in _sections(markdown):
        for text in chain.from_iterable(map(_bounded, _with_their_lists(paragraphs))):
            passage = Passage(id=_id(heading, text), heading=heading, text=text)
            passages.setdefault(passage.id, passage)
    return tuple(passages.values())


def _sections(markdown: str) -> Iterator[tuple[str, list[str]]]:
    above: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in markdown.lstrip("\ufeff").splitlines():
        if fenced := _FENCE.match(line):
            fence = "" if fenced[1] == fence else fence or fenced[1]
        heading = None if fence else _HEADING.fullmatch(line)
        if heading is None:
            lines.append(line)
            continue
        yield _path(above), _paragraphs(lines)
        level = len(heading[1])
        above = [*((depth, name) for depth, name in above if depth < level), (level, heading[2])]
        lines = []
    yield _path(above), _paragraphs(lines)


def _path(above: list[tuple[int, str]]) -> str:
    return " > ".join(name for _, name in above)


def _paragraphs(lines: list[str]) -> list[str]:
    blocks = re.split(r"\n[ \t]*\n", "\n".join(lines))
    return [block.strip("\n").rstrip() for block in blocks if block.strip()]


def _with_their_lists(paragraphs: list[str]) -> list[str]:
    joined: list[str] = []
    for paragraph in paragraphs:
        if joined and _LIST_ITEM.match(paragraph) and (joined[-1].endswith(":") or _LIST_ITEM.match(joined[-1])):
            joined[-1] = f"{joined[-1]}\n\n{paragraph}"
        else:
            joined.append(paragraph)
    return joined


def _bounded(text: str) -> Iterator[str]:
    """The text in pieces of at most MAX_PASSAGE_CHARS, cut at the end of a paragraph, line, sentence or word."""
    while len(text) > MAX_PASSAGE_CHARS:
        found = (text.rfind(end, MAX_PASSAGE_CHARS // 4, MAX_PASSAGE_CHARS) + len(end.rstrip()) for end in _ENDS)
        cut = next((place for place in found if place > MAX_PASSAGE_CHARS // 4), MAX_PASSAGE_CHARS)
        yield text[:cut].rstrip()
        text = text[cut:].lstrip("\n ")
    yield text


def _id(heading: str, text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", heading.rsplit(" > ", 1)[-1].lower()).strip("-")[:40]
    digest = hashlib.sha256(f"{heading}\x1f{text}".encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{slug or 'policy'}-{digest}"
