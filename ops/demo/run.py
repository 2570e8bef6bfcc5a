"""`switchyard demo`: the sample tickets, through Kafka, on a stack of their own; ends with what became of each."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bus.follow import Follower, follow
from bus.publisher import Publisher
from contracts.errors import SupportError
from contracts.topics import OUTCOMES
from ops.demo.report import DemoReport, Row
from ops.demo.shop import demo_shop
from ops.demo.tickets import DemoTicket, sample_tickets
from ops.embedded.stack import EmbeddedStack
from ops.settings import read_settings
from ops.staffing import staffed
from ops.up import has_provider_key, prepare
from ops.wiring import kafka_connection

TIME_LIMIT_S = 80.0


@dataclass
class _Watch:
    """Which rounds were published when, and what came back for them."""

    tickets: dict[str, DemoTicket]
    published: dict[tuple[str, int], float] = field(default_factory=dict)
    outcomes: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[tuple[str, int], float] = field(default_factory=dict)

    @property
    def expected(self) -> int:
        return sum(1 + len(ticket.then) for ticket in self.tickets.values())

    def saw(self, record: Any) -> list[tuple[str, bytes]]:
        """Note an outcome; returns the follow-up to publish now, if its ticket has one."""
        outcome = json.loads(record.value)
        key = (outcome["ticket_id"], outcome["round"])
        found = self.outcomes.setdefault(key, [])
        found.append(outcome)
        if len(found) > 1 or key[0] not in self.tickets:
            return []
        self.seconds[key] = record.timestamp / 1000 - self.published.get(key, record.timestamp / 1000)
        return self.due(key[0], key[1] + 1)

    def due(self, ticket_id: str, round_number: int) -> list[tuple[str, bytes]]:
        """The record that opens a round of a ticket, noted as published now."""
        ticket = self.tickets[ticket_id]
        messages = (ticket.first, *ticket.then)
        if round_number > len(messages):
            return []
        self.published[ticket_id, round_number] = time.time()
        return [(ticket_id, json.dumps(messages[round_number - 1]).encode())]

    def rows(self) -> list[Row]:
        return [
            Row.of(ticket.about, ticket_id, number, self.outcomes.get((ticket_id, number), []), self.seconds)
            for ticket_id, ticket in self.tickets.items()
            for number in range(1, 2 + len(ticket.then))
        ]


async def run_demo(stopping: asyncio.Event, console: Console) -> DemoReport:
    """Run the demo in a directory of its own, thrown away at the end."""
    tickets = {str(ticket.first["ticket_id"]): ticket for ticket in sample_tickets()}
    watch = _Watch(tickets)
    with tempfile.TemporaryDirectory(prefix="switchyard-demo-") as directory, _progress(console) as progress:
        task = progress.add_task("starting PostgreSQL, Valkey, the broker and the agents", total=watch.expected)
        standin = not has_provider_key(read_settings())
        async with EmbeddedStack(Path(directory), with_standin=standin, log=progress.console.print) as stack:
            settings = await prepare(stack, demo_shop)
            connection = kafka_connection(settings.kafka)
            async with follow(connection, OUTCOMES.name, from_start=True) as outcomes, Publisher(connection) as out:
                async with staffed(stack, settings):
                    progress.update(task, description="answering tickets")
                    started = time.monotonic()
                    await _answer_all(watch, outcomes, out, stopping, lambda n: progress.update(task, completed=n))
                    elapsed_s = time.monotonic() - started
                for record in await outcomes.rest():
                    watch.saw(record)
    report = DemoReport(watch.rows(), elapsed_s)
    report.print(console)
    return report


async def _answer_all(
    watch: _Watch,
    outcomes: Follower,
    publisher: Publisher,
    stopping: asyncio.Event,
    show: Callable[[int], None],
) -> None:
    """Publish every ticket, and each follow-up once the round before it has its outcome."""
    await publisher.publish_bare([due for ticket_id in watch.tickets for due in watch.due(ticket_id, 1)])
    limit = time.monotonic() + TIME_LIMIT_S
    while len(watch.seconds) < watch.expected and time.monotonic() < limit:
        if stopping.is_set():
            raise SupportError("the demo was interrupted")
        follow_ups = [due for record in await outcomes.next(0.2) for due in watch.saw(record)]
        if follow_ups:
            await publisher.publish_bare(follow_ups)
        show(len(watch.seconds))


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)
