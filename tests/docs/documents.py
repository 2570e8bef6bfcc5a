"""Reading our Markdown: its fenced blocks, its links, and blocks put into a copy of the project."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("agents", "benchmarks", "bus", "contracts", "evals", "llm", "ops", "state")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(document: Path, language: str) -> list[Block]:
    """The fenced blocks of one language, in order."""
    found = [Block(*match.groups()) for match in _FENCE.finditer(document.read_text(encoding="utf-8"))]
    return [block for block in found if block.language == language]


def section(document: Path, heading: str) -> str:
    """The text under a heading of the second level. Raises KeyError: there is none."""
    parts = re.split(r"^## (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def table(text: str) -> list[list[str]]:
    """The cells of the first table in a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def links(document: Path) -> Iterator[str]:
    """What the document links to, code left aside."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    for match in _LINK.finditer(text):
        yield match[1] or match[2]


def copy_of_the_project(to: Path) -> Path:
    """Our packages and their settings, to be changed at will."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def write_new_file(project: Path, block: Block) -> Path:
    """Write a block whose first line names its file, which must not exist yet; returns its path in the project.

    In Python that line is a part of the file, in Markdown it is not: there the front matter comes first.
    """
    first, _, rest = block.text.partition("\n")
    named = re.fullmatch(r"# (\S+)|<!-- (\S+) -->", first)
    assert named, f"a block should name its file first, not {first!r}"
    path = Path(named[1] or named[2])
    assert not (ROOT / path).exists(), f"{path} exists already"
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text(block.text if named[1] else rest, encoding="utf-8")
    return path


def apply_change(project: Path, block: Block) -> Path:
    """Apply a diff without line numbers: the lines of each hunk, the added ones left out, must stand there once."""
    head, *hunks = re.split(r"^@@\n", block.text, flags=re.MULTILINE)
    path = project / head.strip().removeprefix("--- ")
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = [line or " " for line in hunk.splitlines()]
        old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{path.name} does not hold these lines once:\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path.relative_to(project)
