"""The demo's closing table: a row a round, a line of totals, and whether every round got exactly one outcome."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.table import Table

_WIDTH_OF_THE_REST = 86  # of all columns but the two that hold free text
_LEAST_TEXT = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One round of a ticket: what it was, who settled it, what was done, how long it took, what it cost."""

    ticket_id: str
    round: int
    about: str
    outcomes: int
    label: str = "-"
    settled_by: str = "-"
    disposition: str = "-"
    done: str = ""
    seconds: float = 0.0
    cost_usd: float = 0.0

    @classmethod
    def of(
        cls,
        about: str,
        ticket_id: str,
        number: int,
        outcomes: Sequence[Mapping[str, Any]],
        seconds: Mapping[tuple[str, int], float],
    ) -> Self:
        """The row of a round, from the outcomes that came for it."""
        if not outcomes:
            return cls(ticket_id, number, about, 0)
        outcome = outcomes[0]
        return cls(
            ticket_id=ticket_id,
            round=number,
            about=about,
            outcomes=len(outcomes),
            label=outcome["label"] or "-",
            settled_by="a person" if outcome["disposition"] in ("escalated", "timed_out") else outcome["agent"],
            disposition=outcome["disposition"],
            done=_done(outcome),
            seconds=seconds[ticket_id, number],
            cost_usd=outcome["cost_usd"],
        )


def _done(outcome: Mapping[str, Any]) -> str:
    acts = [f"{a['kind']} {a['order_id']} ${a['amount']:.2f}" for a in outcome["actions"]]
    return "; ".join(acts) or " ".join((outcome["reply"] or outcome["reason"]).split())


@dataclass(frozen=True, slots=True)
class DemoReport:
    """All rows, and the seconds from the first publish to the last outcome."""

    rows: Sequence[Row]
    elapsed_s: float

    @property
    def passed(self) -> bool:
        """Whether every round got exactly one outcome."""
        return all(row.outcomes == 1 for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return {"passed": self.passed, "elapsed_s": round(self.elapsed_s, 3), "rows": [asdict(r) for r in self.rows]}

    def print(self, console: Console) -> None:
        """Print the table, the totals, and what is wrong if anything is."""
        table = Table(title="What became of the tickets", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("ticket", "what it was", "label", "settled by", "outcome", "what was done"):
            table.add_column(heading, no_wrap=True)
        for heading in ("s", "USD"):
            table.add_column(heading, justify="right", no_wrap=True)
        spare = max(console.width - _WIDTH_OF_THE_REST, 2 * _LEAST_TEXT)
        for row in self.rows:
            ticket = row.ticket_id if row.round == 1 else f"{row.ticket_id} #{row.round}"
            about, done = _cut(row.about, spare // 3), _cut(row.done, spare - spare // 3)
            cells = (about, row.label, row.settled_by, row.disposition, done)
            table.add_row(ticket, *cells, f"{row.seconds:.2f}", f"{row.cost_usd:.5f}")
        console.print(table)
        console.print(self._totals())
        for row in self.rows:
            if row.outcomes != 1:
                console.print(f"[red]{row.ticket_id}, round {row.round}: {row.outcomes} outcomes, not one[/red]")

    def _totals(self) -> str:
        ends = Counter(row.disposition for row in self.rows)
        ended = ", ".join(f"{count} {disposition}" for disposition, count in ends.most_common())
        tickets = len({row.ticket_id for row in self.rows})
        cost = sum(row.cost_usd for row in self.rows)
        verdict = "each with exactly one outcome" if self.passed else "NOT each with exactly one outcome"
        return (
            f"{tickets} tickets, {len(self.rows)} rounds in {self.elapsed_s:.1f} s, {verdict}: {ended}; "
            f"models cost ${cost:.4f}"
        )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
