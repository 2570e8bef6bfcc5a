"""`switchyard rewind`: an agent reads its topic again from an earlier place, or skips ahead."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ops.running import run

if TYPE_CHECKING:
    from ops.rewind import Rewound


def rewind(
    agent: Annotated[str, typer.Argument(help="Whose group.")],
    to: Annotated[
        str,
        typer.Option(
            help="earliest, latest, 2026-11-21T14:05:00Z, -2h (so long ago), or offsets: PARTITION:OFFSET,…",
        ),
    ],
    partition: Annotated[list[int] | None, typer.Option(help="This partition alone; may be given again.")] = None,
    by: Annotated[str, typer.Option("--by", help="Who asks; the name you are logged in with if left out.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the book.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Have AGENT, whose workers are stopped, begin elsewhere in its topic. What it has settled before, it drops."""
    from ops.rewind import groups_topic, rewinding, target_of
    from ops.settings import read_settings

    target = target_of(to, groups_topic(agent), now=datetime.now(UTC))

    async def move() -> Rewound:
        async with rewinding(agent, read_settings()) as group:
            if dry_run:
                return await group.told(target, partition or ())
            return await group.done(target, partition or (), by=by or getpass.getuser(), reason=reason)

    rewound = run(move())
    print(json.dumps(asdict(rewound)) if as_json else _as_text(rewound), flush=True)


def _as_text(rewound: Rewound) -> str:
    outlook = rewound.outlook
    lines = [
        f"  partition {one.partition}: {one.now} -> {one.to} of {one.begins} to {one.ends}" for one in rewound.moves
    ]
    counts = (
        f"{outlook.dropped} records the inbox drops, {outlook.queued} of parked tickets, {outlook.anew} to be handled,"
        f" {outlook.unreadable} unreadable, {outlook.skipped} skipped"
    )
    return "\n".join(
        [f"{'moved' if rewound.moved else 'would move'} {rewound.group} on {rewound.topic}", *lines, counts]
    )
