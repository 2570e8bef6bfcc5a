"""`switchyard lag`: how far each agent is behind, in records that are not finished and in seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ops.printing import open_console, print_json
from ops.running import run, until_signalled

if TYPE_CHECKING:
    from rich.table import Table

    from bus.lag import PartitionLag
    from ops.service.lag import AgentLag

lag_app = typer.Typer()

_WATCH_EVERY_S = 2.0


@lag_app.command()
def lag(
    agent: Annotated[
        str | None, typer.Argument(help="triage, lookup, reasoning, effects or review; all of them else.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show beside it what Kafka's own tools would say.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a look.")] = False,
) -> None:
    """Show which records each agent has not finished, how old they are, and when they will be."""
    from ops.service.lag import lag_now
    from ops.settings import read_settings
    from ops.wiring import agents_named

    agents, settings = agents_named(agent), read_settings()
    if watch:
        run(until_signalled(lambda stopping: _watch(agents, raw, as_json, stopping)))
    else:
        _print(run(lag_now(agents, settings)), raw, as_json)


async def _watch(agents: Sequence[str], raw: bool, as_json: bool, stopping: asyncio.Event) -> None:
    from ops.service.lag import watching
    from ops.settings import read_settings

    async with watching(agents, read_settings()) as look:
        while not stopping.is_set():
            _print(await look(), raw, as_json)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _WATCH_EVERY_S)


def _print(lags: Sequence[AgentLag], raw: bool, as_json: bool) -> None:
    if as_json:
        print_json([lag.as_document() for lag in lags])
        return
    console = open_console()
    if console.is_terminal:
        console.clear()
    for lag in lags:
        console.print(_headline(lag), soft_wrap=not console.is_terminal)
        console.print(_table(lag, raw))


def _headline(lag: AgentLag) -> str:
    """An agent in a line or two."""
    lanes, running = sum(w.lanes for w in lag.workers), sum(w.running for w in lag.workers)
    parts = [
        f"{lag.agent}: {'at most ' * lag.at_most}{lag.unfinished:,} not finished",
        f"the oldest {_seconds(lag.oldest_s)} old",
        "never drained" if lag.drain_s is None else f"drained in {_seconds(lag.drain_s)} at {lag.pace_per_s:,.1f}/s",
        f"{len(lag.group.members)} workers, {running:,} of {lanes:,} lanes busy",
        f"{lag.dead_letters:,} dead letters stop tickets ({lag.letters_written:,} on the topic)",
    ]
    lines = [", ".join(parts)]
    if lag.paused:
        lines.append(f"  paused: {lag.paused}")
    if lag.unknown:
        lines.append(f"  without partitions {', '.join(map(str, lag.unknown))}, which cannot be asked")
    return "\n".join(lines)


def _table(lag: AgentLag, raw: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))  # so that all of it fits into 80 columns, the headings on two lines
    names = ["part.", "left", "open", "waiting", "blocked", "dead letters", "oldest"]
    names += ["commit", "log start", "log end", "Kafka lag"] if raw else []
    for name in names:
        table.add_column(name, justify="right", overflow="fold")  # no digit is ever cut off
    table.add_column("", no_wrap=True)
    for row in lag.partitions:
        table.add_row(*_cells(row, lag.at_s, raw))
    return table


def _cells(row: PartitionLag, at_s: float, raw: bool) -> list[str]:
    age = None if row.oldest_ms is None else max(0.0, at_s - row.oldest_ms / 1000)
    numbers = [row.partition, row.unfinished, row.open, row.waiting, row.blocked, row.dead_letters]
    cells = [*(f"{number:,}" for number in numbers), "" if age is None else _seconds(age)]
    if raw:
        bounds = row.bounds
        kafka = (row.committed, bounds.start if bounds else None, bounds.high if bounds else None, row.raw)
        cells += ["-" if number is None else f"{number:,}" for number in kafka]
    note = f"cannot be asked: {row.error}" if row.error else "at most" * row.at_most
    return [*cells, note]


def _seconds(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"
