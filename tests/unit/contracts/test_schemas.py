"""The generated files: in step with the contracts, sound in themselves, and guarded against breaking changes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.codec import encode
from bus.dead_letters import DeadLetters
from bus.delivery import Delivery
from bus.outcome import DeadLetter
from contracts.errors import Undecodable
from contracts.events import CustomerReplied, TicketSubmitted
from contracts.ports import Record
from contracts.topics import CATALOGUE, all_topics
from ops import schemas

WANTED = schemas.generated()
ASYNCAPI: dict[str, Any] = yaml.safe_load(WANTED["asyncapi.yaml"])


def with_fields(name: str, **fields: Any) -> dict[str, str]:
    """The generated files, one of them with other fields; None takes a field away."""
    schema = json.loads(WANTED[name])
    schema["properties"] = {k: v for k, v in (schema["properties"] | fields).items() if v is not None}
    return WANTED | {name: json.dumps(schema)}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_generating_twice_gives_the_same_text() -> None:
    assert schemas.generated() == WANTED


def test_the_committed_files_are_in_step() -> None:
    assert schemas.main(["--check"]) == 0


def test_a_first_run_writes_every_file_and_the_check_is_content(tmp_path: Path) -> None:
    assert schemas.main(["--check"], tmp_path / "schemas") == 1
    assert schemas.main([], tmp_path / "schemas") == 0
    assert {path.name for path in (tmp_path / "schemas").iterdir()} == set(WANTED)
    assert schemas.main(["--check"], tmp_path / "schemas") == 0


def test_an_added_field_is_stale_until_it_is_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, with_fields("TicketSubmitted.v1.json", subject=None))
    assert schemas.main(["--check"], folder) == 1
    assert capsys.readouterr().err == "TicketSubmitted.v1.json is stale: run `make schemas`\n"
    assert schemas.main([], folder) == 0
    assert schemas.main(["--check"], folder) == 0


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_removed_field_is_refused_and_nothing_is_overwritten(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = with_fields("SendReply.v1.json", greeting={"type": "string"})
    folder = write(tmp_path, kept)
    assert schemas.main(arguments, folder) == 1
    assert "SendReply.v1.json: `greeting` is gone or renamed" in capsys.readouterr().err
    assert (folder / "SendReply.v1.json").read_text() == kept["SendReply.v1.json"]


def test_a_new_version_may_break_with_the_old_one_whose_file_stays() -> None:
    kept = {"SendReply.v1.json": '{"properties": {"greeting": {}}}'}
    wanted = {"SendReply.v2.json": '{"properties": {}}'}
    assert schemas.broken_promises(kept, wanted) == []


def test_a_type_may_not_vanish() -> None:
    kept = {"SendReply.v1.json": "{}"}
    assert schemas.broken_promises(kept, {}) == ["SendReply.v1.json: the type is gone from the catalogue"]


def test_unknown_fields_are_allowed_everywhere_since_readers_ignore_them() -> None:
    assert not [name for name, text in WANTED.items() if '"additionalProperties": false' in text]


def test_every_schema_says_what_the_record_header_says() -> None:
    event = TicketSubmitted(ticket_id="t", body="b")
    record = encode(
        event,
        cause=None,
        event_id="e",
        time=datetime.now(UTC),
        source="s",
        deadline=datetime.now(UTC),
        traceparent="00-0-0-00",
    )
    headers = {name: value.decode() for name, value in record.headers}
    described = ASYNCAPI["components"]["messages"]["TicketSubmitted"]["headers"]["properties"]
    assert json.loads(WANTED["TicketSubmitted.v1.json"])["$id"] == headers["ce_dataschema"]
    assert set(headers) <= set(described)
    constants = {name: rule["const"] for name, rule in described.items() if "const" in rule}
    assert constants == {name: headers[name] for name in constants}


class Outbasket:
    """Keeps what would have been published."""

    def __init__(self) -> None:
        self.headers: dict[str, bytes | None] = {}

    async def put(self, topic: str, *, headers: tuple[tuple[str, bytes | None], ...], **_: object) -> None:
        self.headers = dict(headers)


@pytest.mark.parametrize(("trace_id", "cause"), [(None, None), ("0af7", ValueError("x"))])
async def test_dead_letters_carry_the_headers_that_are_described(trace_id: str | None, cause: Exception | None) -> None:
    published: Any = Outbasket()
    error = Undecodable("not JSON")
    error.__cause__ = cause
    record = Record(topic="t", partition=0, offset=1, timestamp=2, key=b"k", value=b"v")
    delivery = Delivery(record, b"k")
    delivery.read_as(error)
    await DeadLetters("triage", published).write(delivery, DeadLetter(error, trace_id=trace_id))
    described = ASYNCAPI["components"]["messages"]["DeadLetter"]["headers"]
    assert set(described["required"]) <= set(published.headers) <= set(described["properties"])
    if trace_id and cause:
        assert set(published.headers) == set(described["properties"])
    types = described["properties"]["kafka_dlt-original-timestamp-type"]["enum"]
    assert published.headers["kafka_dlt-original-timestamp-type"].decode() in types


def test_every_topic_is_a_channel_as_the_catalogue_has_it() -> None:
    channels = {channel["address"]: channel for channel in ASYNCAPI["channels"].values()}
    assert set(channels) == {topic.name for topic in all_topics()}
    for topic in all_topics():
        kafka = channels[topic.name]["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
        told = {name: _as_kafka(value) for name, value in kafka["topicConfiguration"].items()}
        assert told == topic.config()
        names = [payload.type_name() for payload in topic.payloads] or ["DeadLetter"]
        assert list(channels[topic.name]["messages"]) == names


def _as_kafka(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def test_every_group_receives_its_topic_and_sends_its_dead_letters() -> None:
    for topic in CATALOGUE:
        for group in topic.read_by:
            receives = ASYNCAPI["operations"][f"{group}-receives"]
            sends = ASYNCAPI["operations"][f"{group}-sends-dead-letters"]
            assert (receives["action"], sends["action"]) == ("receive", "send")
            assert _resolve(receives["channel"]["$ref"])["address"] == topic.name
            assert _resolve(sends["channel"]["$ref"])["address"] == f"{topic.name}.{group}.dlt"


def test_every_reference_leads_somewhere() -> None:
    references = list(_references(ASYNCAPI))
    assert references
    for reference in references:
        if reference.startswith("#/"):
            _resolve(reference)
        else:
            assert reference.removeprefix("./") in WANTED


def test_only_a_bare_ticket_may_come_without_headers() -> None:
    optional = {
        name
        for name, message in ASYNCAPI["components"]["messages"].items()
        if "ce_type" not in message["headers"].get("required", []) and name != "DeadLetter"
    }
    assert optional == {TicketSubmitted.type_name()}
    assert CustomerReplied.type_name() in ASYNCAPI["components"]["messages"]


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _resolve(reference: str) -> Any:
    found: Any = ASYNCAPI
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found
