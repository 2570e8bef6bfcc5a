"""The tables in docs/ are what the code says."""

import inspect
import re
from dataclasses import fields

from bus import dead_letters
from bus.options import WorkerOptions
from contracts.topics import CATALOGUE, EFFECTS, Topic, dead_letter_topic, dead_letters_of
from ops import cli
from tests.docs.documents import ROOT, section, table

ARCHITECTURE = ROOT / "docs/architecture.md"
OPERATIONS = ROOT / "docs/operations.md"
_DAY_MS = 24 * 60 * 60 * 1000


def kept_for(topic: Topic) -> str:
    days = topic.retention_ms // _DAY_MS
    return f"{days} day{'s' if days > 1 else ''}"


def shown(heading: str) -> dict[str, list[str]]:
    """A table of operations.md by its first column."""
    return {row[0].strip("`"): row[1:] for row in table(section(OPERATIONS, heading))}


def test_the_topics_hold_and_are_read_by_what_the_catalogue_says() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table(section(ARCHITECTURE, "Topics"))}
    assert set(rows) == {topic.name for topic in CATALOGUE}
    for topic in CATALOGUE:
        holds, readers, emits = rows[topic.name]
        names = [payload.type_name() for payload in topic.payloads]
        assert re.findall(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*", holds) == names
        assert all(group in readers for group in topic.read_by)
        assert bool(emits) == bool(topic.read_by)


def test_what_readers_emit_is_in_the_catalogue() -> None:
    known = {payload.type_name() for topic in CATALOGUE for payload in topic.payloads}
    for row in table(section(ARCHITECTURE, "Topics")):
        assert set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", row[3])) <= known


def test_partitions_and_retention_are_those_of_the_catalogue() -> None:
    rows = shown("Starting")
    assert rows.pop(dead_letter_topic("<topic>", "<group>")) == [
        "as its topic",
        kept_for(dead_letters_of(EFFECTS, "x")),
    ]
    assert rows == {topic.name: [str(topic.partitions), kept_for(topic)] for topic in CATALOGUE}


def test_the_headers_of_dead_letters_are_those_that_are_written() -> None:
    written = re.findall(r'"(kafka_dlt-[a-z-]+)"', inspect.getsource(dead_letters))
    assert list(shown("Dead letters")) == written


def test_what_no_setting_changes_is_what_a_worker_does() -> None:
    defaults = {field.name: getattr(WorkerOptions(), field.name) for field in fields(WorkerOptions)}
    for name, [value, _] in shown("One worker").items():
        assert value == str(defaults[name]).strip("()"), name


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert cli.__doc__ is not None
    assert list(shown("Exit codes")) == re.findall(r"(\d+) [a-z]", cli.__doc__)
