"""`switchyard topics`: the cluster's topics against the catalogue, and making them so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ops.printing import Json, open_console, print_json
from ops.running import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from bus.admin import TopicChange
    from ops.service.topics import TopicDetail, TopicState

topics_app = typer.Typer(no_args_is_help=True, help="The cluster's topics against the catalogue.")


@topics_app.command("list")
def list_(as_json: Json = False) -> None:
    """Show the catalogue's topics as the cluster has them, and topics called like them that the catalogue lacks."""
    from ops.service.topics import listed
    from ops.settings import read_settings

    states = run(listed(read_settings()))
    if as_json:
        print_json([state.as_document() for state in states])
    else:
        open_console().print(_table(states))


@topics_app.command()
def describe(
    topic: Annotated[str, typer.Argument(help="Its name, as `list` shows it.")], as_json: Json = False
) -> None:
    """Show one topic: what it is for, its event types, its partitions, its settings, and who reads it."""
    from ops.service.topics import described
    from ops.settings import read_settings

    detail = run(described(topic, read_settings()))
    if as_json:
        print_json(detail.as_document())
    else:
        _describe(detail)


@topics_app.command()
def apply(
    partitions: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC=N", help="So many partitions of this topic, more than it has; may be given again."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make the cluster's topics what the catalogue says; nothing is ever deleted, and no partition taken away."""
    from ops.service import topics
    from ops.settings import read_settings

    asked = dict(map(_count, partitions or []))
    _print_changes(run(topics.apply(read_settings(), partitions=asked, dry_run=dry_run)), as_json)


@topics_app.command()
def check(as_json: Json = False) -> None:
    """Show the topics that are not as the catalogue says, and those that it lacks; exit 1 when there are any."""
    from ops.service.topics import drifted
    from ops.settings import read_settings

    changes = run(drifted(read_settings()))
    _print_changes(changes, as_json)
    raise typer.Exit(1 if changes else 0)


def _count(asked: str) -> tuple[str, int]:
    from contracts.errors import Misconfigured

    name, _, count = asked.partition("=")
    if not count.isascii() or not count.isdigit():
        raise Misconfigured(f"--partitions {asked!r} should look like support.tickets.v1=16")
    return name, int(count)


def _print_changes(changes: Sequence[TopicChange], as_json: bool) -> None:
    if as_json:
        print_json([{"topic": change.topic, "change": change.change} for change in changes])
        return
    width = max((len(change.topic) for change in changes), default=0)
    lines = [f"{change.topic:<{width}}  {change.change}" for change in changes]
    print("\n".join(lines) or "as the catalogue says", flush=True)


def _table(states: Sequence[TopicState]) -> Table:
    from rich.table import Table

    table = Table("topic", box=None, pad_edge=False)
    for name in ("partitions", "copies", "kept for", "policy", "records", "size"):
        table.add_column(name, justify="right")
    table.add_column("read by")
    table.add_column("drift")
    for state in states:
        table.add_row(state.name, *_facts(state), ", ".join(state.read_by), "; ".join(_odd(state)) or "none")
    return table


def _facts(state: TopicState) -> Sequence[str]:
    seen = state.seen
    if seen is None:
        return [""] * 6
    kept, policy = seen.settings.get("retention.ms"), seen.settings.get("cleanup.policy", "?")
    records = "?" if seen.records is None else f"{seen.records:,}"
    return [str(len(seen.partitions)), str(seen.replication), _time(kept), policy, records, _size(seen.size_bytes)]


def _odd(state: TopicState) -> Sequence[str]:
    """What is not as it should be, in words."""
    odd = [state.drift] if state.drift else []
    odd += [f"no leader: {_numbers(state.without_leader)}"] if state.without_leader else []
    odd += [f"short of copies: {_numbers(state.short_of_copies)}"] if state.short_of_copies else []
    return odd


def _describe(detail: TopicDetail) -> None:
    state, console = detail.state, open_console()
    about = state.wanted.about if state.wanted else "nothing that this version knows"
    console.print(f"{state.name}: {about}", soft_wrap=True)
    for odd in _odd(state):
        console.print(f"  {odd}", soft_wrap=True)
    for name, says in detail.events.items():
        console.print(f"  {name:<22}{says}", soft_wrap=True)
    if state.seen is None:
        return
    for name, value in _settings(state).items():
        console.print(f"  {name:<22}{value}", soft_wrap=True)
    console.print(_partitions(detail), _consumers(detail), sep="\n")


def _settings(state: TopicState) -> Mapping[str, str]:
    document = state.as_document()
    return {name: value for name, value in (document["settings"] or {}).items() if value is not None}


def _partitions(detail: TopicDetail) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for name in ("partition", "leader", "replicas", "in sync", "log start", "log end", "size"):
        table.add_column(name, justify="right")
    for one in detail.state.seen.partitions if detail.state.seen else ():
        bounds = ("?" if offset is None else f"{offset:,}" for offset in (one.start, one.end))
        leader = "none" if one.leader is None else str(one.leader)
        table.add_row(
            str(one.number), leader, _numbers(one.replicas), _numbers(one.in_sync), *bounds, _size(one.size_bytes)
        )
    return table


def _consumers(detail: TopicDetail) -> Table | str:
    from rich.table import Table

    if not detail.consumers:
        return " no group reads it"
    table = Table("group", "state", box=None)
    for name in ("members", "not finished", "Kafka's lag"):
        table.add_column(name, justify="right")
    for one in detail.consumers:
        counts = ("-" if count is None else f"{count:,}" for count in (one.unfinished, one.kafka_lag))
        table.add_row(one.group, one.state, str(one.members), *counts)
    return table


def _numbers(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _time(milliseconds: str | None) -> str:
    if milliseconds is None:
        return "?"
    if int(milliseconds) < 0:
        return "ever"
    hours = int(milliseconds) / 3_600_000
    return f"{hours / 24:.3g} d" if hours >= 24 else f"{hours:.3g} h"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "?"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
