"""`switchyard rewind`: an agent reads its topic again from an earlier place, or skips ahead."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ops.printing import Json, print_found
from ops.running import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.rewinds import NotedRewind
    from ops.service.rewind import Rewinding, Rewound


def rewind(
    agent: Annotated[str, typer.Argument(help="Whose group.")],
    to: Annotated[
        str,
        typer.Option(
            help="earliest, latest, 2026-11-21T14:05:00Z, -2h (so long ago), or offsets: PARTITION:OFFSET,…",
        ),
    ],
    partition: Annotated[list[int] | None, typer.Option(help="This partition alone; may be given again.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Decide anew what was handled; needs a reason.")] = False,
    by: Annotated[str, typer.Option("--by", help="Who asks; the name you are logged in with if left out.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the book.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Have AGENT begin elsewhere in its topic; its workers leave for that and return. What it has settled, it drops."""
    from ops.service.rewind import rewinding, target_of
    from ops.settings import read_settings
    from ops.wiring import wired

    if again and not reason.strip():
        raise typer.BadParameter("say why it is decided anew", param_hint="--reason")
    target = target_of(to, wired(agent).reads, now=datetime.now(UTC))

    async def move() -> Rewound:
        async with rewinding(agent, read_settings()) as group:
            if dry_run:
                return await group.told(target, partition or (), again=again)
            await _warn(group)
            asked = by or getpass.getuser()
            return await group.done(target, partition or (), by=asked, reason=reason, again=again)

    rewound = run(move())
    print_found(asdict(rewound), as_json, _as_text(rewound))


def rewinds(
    agent: Annotated[str | None, typer.Argument(help="Of this agent's group alone.")] = None, as_json: Json = False
) -> None:
    """Show who rewound which group, from where to where, and why; the latest first, of the last 100."""
    from ops.service.rewind import past_rewinds
    from ops.settings import read_settings

    found = run(past_rewinds(agent, read_settings()))
    print_found([asdict(one) for one in found], as_json, "\n".join(map(past_as_text, found)) or "no rewinds")


def past_as_text(rewind: NotedRewind) -> str:
    """One of the book, in two lines."""
    when = f"{rewind.begun_at:%Y-%m-%d %H:%M:%S}" if rewind.begun_at else "?"
    why = f": {rewind.reason}" if rewind.reason else ""
    moves = ", ".join(f"{partition}: {now} -> {to}" for partition, (now, to) in sorted(rewind.moves.items()))
    rounds = "".join(f", {count} {fate}" for fate, count in rewind.rounds.items())
    fate = "done" if rewind.moved_at else "begun and not done"
    return f"{when}  {rewind.group} by {rewind.by}{why}\n  {fate}{rounds}; {moves or 'no partition moved'}"


async def _warn(group: Rewinding) -> None:
    workers = await group.workers()
    if workers:
        typer.echo(
            f"sending {', '.join(workers)} out of the group {group.group}: they finish what is in flight, for at most"
            f" {group.absence.limit_s:g} s, and return by themselves",
            err=True,
        )


def _as_text(rewound: Rewound) -> str:
    outlook, moved = rewound.outlook, rewound.moved
    lines = [
        f"{'moved' if moved else 'would move'} {rewound.group} on {rewound.topic}",
        *(f"  partition {one.partition}: {one.now} -> {one.to} of {one.begins} to {one.ends}" for one in rewound.moves),
        f"{outlook.dropped} records the inbox drops, {outlook.queued} of parked tickets, {outlook.anew} to be handled,"
        f" {outlook.unreadable} unreadable, {outlook.skipped} skipped",
    ]
    if rewound.rounds is not None:
        lines.append(_again(rewound.rounds, rewound.group, moved=moved))
    if rewound.workers and not moved:
        lines.append(f"{', '.join(rewound.workers)} would be sent out of the group for it, and return")
    return "\n".join(lines)


def _again(rounds: Mapping[str, int], agent: str, *, moved: bool) -> str:
    left = ", ".join(f"{count} {fate}" for fate, count in rounds.items() if fate != "again")
    return (
        f"{rounds.get('again', 0)} rounds {'are' if moved else 'would be'} decided anew: {agent} and the agents after"
        f" it ask their models again for each; left as they are: {left or 'none'}"
    )
