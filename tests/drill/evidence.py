"""Gathers what a run left outside: ledgers, topics, samples, and the tables that only the end is read of."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.topics import EFFECTS, OUTCOMES, REVIEW, USAGE
from tests.drill.ledger import read_ledgers
from tests.drill.oracles import Accepted, Begun, Bought, Effect, Emitted, Evidence, Letter, Logged, Place
from tests.drill.watching import TopicRecord, header, read_topic

if TYPE_CHECKING:
    from tests.drill.run import Run

Line = Mapping[str, Any]


async def gathered(run: "Run") -> Evidence:
    """Everything the judges may look at."""
    lines = read_ledgers(run.folder)
    outcomes, commands, others = await _emitted(run)
    inbox = await read_topic(run.bed.connection, run.topic)
    generation = run.generation_at(math.inf)
    read = [logged(run.group("asker"), record, generation) for record in inbox] + run.earlier_logs
    read += [logged(run.group("carrier"), record) for record in commands]
    of_commands = [_emitted_record(record) for record in commands if _is_ours(run, record)]
    async with run.database() as connection:
        stored = await connection.fetch(
            "SELECT event_id, true AS waits FROM outbox UNION ALL SELECT event_id, false FROM emitted"
        )
        kept = await connection.fetch("SELECT effect_key FROM effects")
        behind = await connection.fetch("SELECT topic, partition, kafka_offset, queued_at FROM parked_records")
    places = (_place(run, list(row)[:3], row["queued_at"].timestamp()) for row in behind)
    of_outcomes = [_emitted_record(record) for record in outcomes if _is_ours(run, record)]
    return Evidence(
        accepted=[_accepted(run, line) for line in lines if line["what"] == "accepted"],
        outcomes=of_outcomes,
        commands=of_commands,
        effects=[
            Effect(line["key"], line["ticket"], line["round"], line["text"])
            for line in lines
            if line["what"] == "effect"
        ],
        effects_kept=frozenset(row["effect_key"] for row in kept),
        letters=await _letters(run),
        waiting=frozenset(places),
        logged=read,
        samples=run.sampler.samples,
        finished_events=_finished_events(lines),
        finished_places=_finished_places(run, lines),
        stored=frozenset(row["event_id"] for row in stored) | frozenset(_all_of(lines, "settled", "emitted")),
        published=frozenset([*(e.event for e in of_outcomes), *(e.event for e in of_commands), *others]),
        unpublished=sum(row["waits"] for row in stored),
        bought=[Bought(line["event"], line["recalled_at"]) for line in lines if line["what"] == "paid"],
        kept={line["event"]: line["at"] for line in reversed(lines) if line["what"] == "kept"},
        begun=[Begun(line["group"], line["event"], line["looked_up_at"]) for line in lines if line["what"] == "began"],
        ended=run.crew.ended,
        order_of_messages=run.order_of_messages,
    )


async def _emitted(run: "Run") -> tuple[list[TopicRecord], list[TopicRecord], list[str]]:
    """Outcomes, commands, and the ids of everything else the system published since the run began."""
    found = {
        topic.name: await read_topic(run.bed.connection, topic.name, run.begins[topic.name])
        for topic in (OUTCOMES, EFFECTS, REVIEW, USAGE)
    }
    others = [header(record, "ce_id") for name in (REVIEW.name, USAGE.name) for record in found[name]]
    return found[OUTCOMES.name], found[EFFECTS.name], others


def _is_ours(run: "Run", record: TopicRecord) -> bool:
    return (record.key or b"").decode("utf-8", "replace").startswith(f"{run.load.prefix}-")


def _emitted_record(record: TopicRecord) -> Emitted:
    payload = json.loads(record.value)
    return Emitted(
        event=header(record, "ce_id"),
        cause=header(record, "ce_causationid"),
        type=header(record, "ce_type"),
        ticket=payload["ticket_id"],
        round=payload.get("round", 0),
        place=_place_of(record),
        key=payload.get("effect_key", ""),
    )


def logged(group: str, record: TopicRecord, generation: int = 0) -> Logged:
    """A record that a group has to read."""
    return Logged(group, _place_of(record)._replace(generation=generation), header(record, "ce_id"))


def _place_of(record: TopicRecord) -> Place:
    return Place(record.topic, record.partition, record.offset)


async def _letters(run: "Run") -> list[Letter]:
    found = []
    for group, topic in run.dead_letters.items():
        for record in await read_topic(run.bed.connection, topic):
            written_at = record.timestamp / 1000
            names = ("topic", "partition", "offset")
            topic_, *numbers = (header(record, f"kafka_dlt-original-{name}") for name in names)
            place = _place(run, [topic_, *map(int, numbers)], written_at)
            found.append(Letter(group, place, written_at))
    return found


def _accepted(run: "Run", line: Line) -> Accepted:
    place = _place(run, line["place"], line["at"])
    return Accepted(line["event"], line["ticket"], line["ends"], place, line["nth"], line["question"])


def _finished_events(lines: Sequence[Line]) -> dict[tuple[str, str], float]:
    """When an event was first known to be settled: its write was answered, or the inbox named it."""
    found: dict[tuple[str, str], float] = {}
    for line in lines:
        if line["what"] in ("settled", "handled"):
            for event in line["events"]:
                found.setdefault((line["group"], event), line["at"])
    return found


def _finished_places(run: "Run", lines: Sequence[Line]) -> dict[tuple[str, Place], float]:
    """When a record was first known to be parked, blocked or in a queue."""
    found: dict[tuple[str, Place], float] = {}
    for line in lines:
        if line["what"] in ("parked", "blocked", "queued"):
            for place in line["places"]:
                found.setdefault((line["group"], _place(run, place, line["at"])), line["at"])
    return found


def _place(run: "Run", place: Sequence[Any], at: float) -> Place:
    """Where a record stood at a time: ledgers do not know that a topic was made anew."""
    topic, partition, offset = place
    return Place(topic, partition, offset, run.generation_at(at) if topic == run.topic else 0)


def _all_of(lines: Iterable[Line], what: str, field: str) -> Iterable[str]:
    return (one for line in lines if line["what"] == what for one in line[field])
