"""The ledger of calls: what a provider would put on the bill, kept so that a killed stand-in loses none of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO


class Ledger:
    """One JSON line a call. With a path the lines are appended there and read back at the next start."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lines: list[bytes] = []  # only where there is no file to hold them
        self._counts: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._paid_digests: set[bytes] = set()
        self._file: BinaryIO | None = None
        if path is not None:
            self._recount(path)
            self._file = path.open("ab")

    def note(self, entry: dict[str, Any]) -> None:
        """Append a call. When this returns, a SIGKILL of this process does not undo it."""
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if self._file is None:
            self._lines.append(line)
        else:
            self._file.write(line)
            self._file.flush()
        self._count(entry)

    def lines(self) -> bytes:
        """Every line, oldest first."""
        return b"".join(self._lines) if self._path is None else self._path.read_bytes()

    def entries(self) -> list[dict[str, Any]]:
        """Every call, oldest first."""
        return [json.loads(line) for line in self.lines().splitlines()]

    def summary(self) -> dict[str, Any]:
        """Totals; `repeated_paid_calls` are those whose request had been paid for before."""
        return {
            "calls": self._counts["calls"],
            "paid_calls": self._counts["paid_calls"],
            "distinct_paid_requests": len(self._paid_digests),
            "repeated_paid_calls": self._counts["paid_calls"] - len(self._paid_digests),
            "input_tokens": self._counts["input_tokens"],
            "output_tokens": self._counts["output_tokens"],
            "paid_calls_by_model": dict(self._models),
        }

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _count(self, entry: dict[str, Any]) -> None:
        self._counts["calls"] += 1
        if not entry["paid"]:
            return
        self._counts["paid_calls"] += 1
        self._counts["input_tokens"] += entry["input_tokens"]
        self._counts["output_tokens"] += entry["output_tokens"]
        self._models[entry["model"]] += 1
        self._paid_digests.add(bytes.fromhex(entry["request_digest"][:32]))

    def _recount(self, path: Path) -> None:
        """Count what an earlier run noted, and cut off a line that it did not finish."""
        path.touch()
        noted = path.read_bytes()
        whole = noted.rfind(b"\n") + 1
        for line in noted[:whole].splitlines():
            self._count(json.loads(line))
        if whole < len(noted):
            with path.open("r+b") as file:
                file.truncate(whole)
