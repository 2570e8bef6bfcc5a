"""README.md and docs/: what they name is there, what they show works."""

import asyncio
import json
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, TypeAdapter
from typer.testing import CliRunner

from bus.admin import apply_topics
from bus.codec import Codec
from bus.connection import KafkaConnection
from bus.follow import follow
from contracts.events import OUTCOME_OF_DISPOSITION, Outcome, TicketSubmitted
from contracts.ports import Record
from contracts.topics import INBOX_OF_GROUP, TICKETS
from evals.cli import switchyard
from ops.broker.server import EmbeddedBroker
from ops.cli import app
from ops.demo.shop import demo_shop
from ops.settings import PREFIX, SECRETS_DIR, Settings, read_settings
from tests.docs.documents import ROOT, Block, blocks, links, section, table

README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODEC = Codec(timedelta(hours=24))


def settings_and_defaults(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from settings_and_defaults(type(field.default), f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", field.get_default(call_default_factory=True)


def as_written(default: Any) -> str:
    """A default as the table shows it."""
    if default is None or default == ():
        return ""
    if isinstance(default, SecretStr):
        return f"`{default.get_secret_value()}`"
    if isinstance(default, timedelta):
        return f"`{TypeAdapter(timedelta).dump_python(default, mode='json')}`"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{default}`"


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def shell_lines(document: Path) -> Iterator[list[str]]:
    for block in blocks(document, "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


def the_block(language: str) -> Block:
    [block] = blocks(README, language)
    return block


# --- what is named is there -------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    inside = [link.partition("#")[0] for link in links(document) if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in inside if not (document.parent / link).exists()] == []


def test_every_decision_is_in_the_index() -> None:
    index = ROOT / "docs/adr/README.md"
    pages = {path.name for path in index.parent.glob("0*.md")}
    assert {link for link in links(index) if link.startswith("0")} == pages
    assert pages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_make_targets_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets
    for words in re.findall(r"(?:`|^)(?:\.venv/bin/)?switchyard ((?:[a-z]+ ?)+)", text, re.MULTILINE):
        command = words.split()[: 2 if words.split()[0] in ("eval", "shop", "topics") else 1]
        assert CliRunner().invoke(switchyard(), [*command, "--help"]).exit_code == 0, command
    assert set(re.findall(r"switchyard run ([a-z]+)", text)) - {"goodwill"} <= set(INBOX_OF_GROUP)


def test_the_readme_names_every_command() -> None:
    registered = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    named = set(re.findall(r"switchyard ([a-z]+)", README.read_text())) | set(
        re.findall(r"make ([a-z]+)", README.read_text())
    )
    for group in app.registered_groups:  # one without a name has its commands among the others
        assert group.typer_instance is not None
        commands = [c.name or c.callback.__name__ for c in group.typer_instance.registered_commands if c.callback]
        registered += [group.name] if isinstance(group.name, str) else commands
    assert set(registered) <= named


def test_the_folders_are_those_of_the_project() -> None:
    named = {codes(row[0])[0] for row in table(section(README, "Folders"))}
    assert all((ROOT / name).is_dir() for name in named)
    assert {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")} - {"benchmarks/"} <= named


# --- settings ---------------------------------------------------------------------------------------------------


def test_the_table_of_settings_is_the_settings() -> None:
    shown = {codes(row[0])[0]: row[1] for row in table(section(README, "On a real cluster"))}
    assert shown == {name: as_written(default) for name, default in settings_and_defaults(Settings, PREFIX)}


def test_every_variable_that_a_document_names_is_read() -> None:
    read = {name for name, _ in settings_and_defaults(Settings, PREFIX)} | {SECRETS_DIR}
    for document in DOCUMENTS:
        assert set(re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", document.read_text(encoding="utf-8"))) <= read, document


def test_the_environment_of_a_real_cluster_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in shell_lines(README):
        if words[:1] == ["export"]:
            monkeypatch.setenv(*words[1].split("=", 1))
    settings = read_settings()
    assert settings.kafka.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
    assert settings.redis.url.get_secret_value() == "redis://redis:6379/0"


def test_a_secret_is_read_from_a_file_named_like_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [shown] = [line for line in section(README, "On a real cluster").split("\n\n") if "Secrets from files" in line]
    for name in codes(shown)[1:]:
        (tmp_path / name).write_text(f"postgresql://from-{name}\n")
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path))
    settings = read_settings()
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value().startswith("postgresql://from-SWITCHYARD_KAFKA")
    assert settings.postgres.dsn.get_secret_value().startswith("postgresql://from-SWITCHYARD_POSTGRES")


def test_the_price_that_is_shown_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    [row] = [row for row in table(section(README, "On a real cluster")) if "LLM__PRICES" in row[0]]
    monkeypatch.setenv(codes(row[0])[0], codes(row[2])[0])
    assert read_settings().llm.prices["openai:my-model"].output == Decimal(4)


# --- producers --------------------------------------------------------------------------------------------------


def decoded(value: bytes, key: bytes) -> TicketSubmitted:
    record = Record(TICKETS.name, 0, 0, timestamp=1_800_000_000_000, key=key, value=value)
    data = CODEC.decode(TICKETS, record).data
    assert isinstance(data, TicketSubmitted)
    return data


def test_the_json_that_is_shown_is_a_ticket() -> None:
    shown = json.loads(the_block("json").text)
    assert decoded(json.dumps(shown).encode(), shown["ticket_id"].encode()).subject == shown["subject"]


def test_the_table_of_fields_is_the_tickets() -> None:
    shown = {codes(row[0])[0]: row[1] for row in table(section(README, "Publishing a ticket"))}
    fields = TicketSubmitted.model_fields
    assert set(shown) == set(fields)
    assert {name for name, text in shown.items() if text == "required"} == {
        n for n, f in fields.items() if f.is_required()
    }
    assert shown["tenant_id"] == f"`{fields['tenant_id'].default}`"


def test_the_kcat_command_publishes_a_ticket_under_its_id() -> None:
    [words] = [block.text for block in blocks(README, "sh") if "kcat" in block.text]
    _, ticket, _, *kcat = shlex.split(words)
    options = dict(zip(kcat[2::2], kcat[3::2], strict=True))
    assert options["-t"] == TICKETS.name
    assert decoded(ticket.encode(), options["-k"].encode()).from_email


def test_the_java_producer_names_our_topic_and_the_tickets_id() -> None:
    text = the_block("java").text
    parts = re.search(r"String ticket = (.*?);\n", text, re.DOTALL)
    assert parts is not None
    value = "".join(json.loads(literal) for literal in re.findall(r'"(?:\\.|[^"\\])*"', parts[1]))
    topic, key = re.findall(r'ProducerRecord<>\("([^"]+)", "([^"]+)", ticket\)', text)[0]
    assert topic == TICKETS.name
    assert decoded(value.encode(), key.encode()).body


def test_the_examples_are_written_by_customers_of_the_demo_shop_about_their_orders() -> None:
    orders_of = {customer.email: customer.orders for customer in demo_shop().customers}
    examples = [the_block(language).text for language in ("json", "java", "python")]
    examples += [block.text for block in blocks(README, "sh") if "kcat" in block.text]
    for example in examples:
        [email] = re.findall(r"[\w.]+@[\w.]+", example)
        assert set(re.findall(r"#W\d+", example)) <= set(orders_of[email])


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaConnection]:
    broker = EmbeddedBroker(tmp_path / "broker", "127.0.0.1", 0)
    await broker.start()
    yield KafkaConnection(broker.bootstrap_servers)
    await broker.stop()


async def test_the_python_producer_publishes_a_ticket(kafka: KafkaConnection) -> None:
    await apply_topics(kafka, [TICKETS])
    text = the_block("python").text
    assert text.count("127.0.0.1:9092") == 1
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text.replace("127.0.0.1:9092", kafka.bootstrap_servers)
    )
    assert await asyncio.wait_for(program.wait(), timeout=60) == 0
    async with follow(kafka, TICKETS.name, from_start=True) as tickets:
        [record] = await tickets.rest()
    assert decoded(record.value, record.key).ticket_id == record.key.decode()


# --- what comes out ---------------------------------------------------------------------------------------------


def test_the_tables_of_outcomes_are_the_contract() -> None:
    text = section(README, "What comes out")
    dispositions, fields = text.split("| field |")
    shown = {codes(row[0])[0]: row[1] for row in table(dispositions)}
    assert shown == {d.value: outcome.type_name() for d, outcome in OUTCOME_OF_DISPOSITION.items()}
    assert {name for row in table(f"| field |{fields}") for name in codes(row[0])} == set(Outcome.model_fields)
