"""A company's policy on disk: Markdown files, and documents as JSON lines."""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import Misconfigured
from contracts.shop import Passage
from state.policy_text import passages_of


class PolicyDocument(BaseModel):
    """One line of a JSONL file; other fields are ignored."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    content: str  # Markdown

    def passages(self) -> tuple[Passage, ...]:
        """Its passages, each under the document's title."""
        return passages_of(f"# {' '.join(self.title.split())}\n\n{self.content}")


def read_policy(directory: Path) -> tuple[Passage, ...]:
    """The passages of every .md and .jsonl file of a directory, in the order of their paths; repeated ones once.

    Raises Misconfigured, naming file and line: nothing is there, or something is broken.
    """
    files = sorted(path for path in directory.rglob("*") if path.suffix in (".md", ".jsonl") and path.is_file())
    if not files:
        raise Misconfigured(f"{directory} holds no policy: put .md files there, or .jsonl files of id, title, content")
    found = {passage.id: passage for path in files for passage in _passages(path)}
    if not found:
        raise Misconfigured(f"the files in {directory} hold no text")
    return tuple(found.values())


def read_documents(path: Path) -> Iterator[PolicyDocument]:
    """The documents of a JSONL file. Raises Misconfigured, naming the line that is broken."""
    seen = set[str]()
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = PolicyDocument.model_validate(json.loads(line))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise Misconfigured(f"{path.name} line {number}: {where}: {first['msg']}") from None
        except ValueError as error:
            raise Misconfigured(f"{path.name} line {number} is not JSON: {error}") from error
        if document.id in seen:
            raise Misconfigured(f"{path.name} line {number}: the id {document.id} is there twice")
        seen.add(document.id)
        yield document


def _passages(path: Path) -> Iterator[Passage]:
    if path.suffix == ".md":
        yield from passages_of(_text(path))
        return
    for document in read_documents(path):
        yield from document.passages()


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path.name} is not UTF-8: byte {error.start}") from error
    if "\x00" in text:
        raise Misconfigured(f"{path.name} holds a NUL character, which no column takes")
    return text
