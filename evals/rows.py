"""Rows: evaluation data as JSONL, a file or a directory of them."""

import json
from pathlib import Path
from typing import Any

from contracts.errors import Misconfigured


def read_rows(data: Path) -> list[dict[str, Any]]:
    """The rows of a file, or of every .jsonl file in a directory by name. Raises Misconfigured: no row, or no JSON."""
    rows = [row for file in _files(data) for row in _rows(file)]
    if not rows:
        raise Misconfigured(f"{data} holds no rows of JSONL")
    return rows


def _files(data: Path) -> list[Path]:
    return sorted(data.glob("*.jsonl")) if data.is_dir() else [data]


def _rows(file: Path) -> list[dict[str, Any]]:
    # Not splitlines: JSON strings may hold U+2028 and its like as they are.
    lines = enumerate(file.read_text(encoding="utf-8").split("\n"), start=1)
    return [_row(file, number, line) for number, line in lines if line.strip()]


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as error:
        raise Misconfigured(f"{file.name} line {number} is no JSON object: {error}") from error
