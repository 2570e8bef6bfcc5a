"""What every command prints by: a text for people, or one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
_WITHOUT_TERMINAL = 180  # columns


def print_found(document: object, as_json: bool, text: str) -> None:
    """Print what a command found, at once, also where nobody looks on: a line of JSON, or the text."""
    if as_json:
        print_json(document)
    else:
        print(text, flush=True)


def print_json(document: object) -> None:
    """Print one line of JSON, at once."""
    print(json.dumps(document, default=str, ensure_ascii=False), flush=True)


def open_console(*, to_stderr: bool = False) -> Console:
    """A console for tables, wide enough where no terminal says how wide it is."""
    from rich.console import Console

    found = Console(stderr=to_stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=to_stderr, highlight=False, width=_WITHOUT_TERMINAL)
