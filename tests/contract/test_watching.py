"""`switchyard lag` on the command line: in a terminal it looks again and again and fits it; bad input is a sentence."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bus.admin import apply_topics
from bus.connection import KafkaConnection
from bus.publisher import Publisher
from contracts.errors import SupportError
from contracts.topics import TICKETS, all_topics
from ops.cli import app
from ops.running import exit_code
from ops.wiring import INBOXES
from tests.contract.backends import embedded_kafka, until
from tests.services.reaper import Reaper

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

_CLEARED = "\x1b[2J"
_ROOT = Path(__file__).parents[2]
_LIMIT_S = 60.0


@dataclass
class Terminal:
    """A terminal in which a command runs, and everything it printed."""

    process: asyncio.subprocess.Process
    master: int
    printed: bytearray = field(default_factory=bytearray)

    @property
    def screens(self) -> list[list[str]]:
        """What stood on the screen between two clearings, as lines without colours."""
        texts = self.printed.decode(errors="replace").split(_CLEARED)[1:]
        plain = (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text) for text in texts)
        return [[line.rstrip() for line in text.replace("\r", "").splitlines()] or [""] for text in plain]

    def read(self) -> None:
        try:
            self.printed += os.read(self.master, 65_536)
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self.master)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[KafkaConnection]:
    async with embedded_kafka(tmp_path) as connection:
        await apply_topics(connection, all_topics(INBOXES))
        yield connection


async def terminal(columns: int, connection: KafkaConnection, dsn: str, reaper: Reaper) -> Terminal:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = os.environ | {
        "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": connection.bootstrap_servers,
        "SWITCHYARD_POSTGRES__DSN": dsn,
        "PYTHONPATH": str(_ROOT),
        "TERM": "xterm",
    }
    environment.pop("COLUMNS", None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", "lag", "triage", "--watch", "--raw"),
        cwd=_ROOT,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    reaper.watch(process.pid)
    os.close(slave)
    shown = Terminal(process, master)
    asyncio.get_running_loop().add_reader(master, shown.read)
    return shown


@pytest.mark.parametrize("columns", [80, 160])
async def test_it_looks_again_and_again_within_the_terminal_until_it_is_asked_to_stop(
    columns: int, connection: KafkaConnection, postgres_dsn: str, reaper: Reaper
) -> None:
    shown = await terminal(columns, connection, postgres_dsn, reaper)

    async def it_told(number: int) -> bool:
        return any(f"triage: {number} not finished" in line for screen in shown.screens for line in screen)

    await until(lambda: it_told(0), _LIMIT_S)
    async with Publisher(connection) as publisher:
        for number in range(1_234):
            await publisher.put(TICKETS.name, key=b"t%d" % number, value=b'{"ticket_id":"t%d","body":"hi"}' % number)

    async def it_told_whole() -> bool:
        return any("triage: 1,234 not finished" in screen[0] for screen in shown.screens[:-1])

    await until(it_told_whole, _LIMIT_S)
    last = next(screen for screen in shown.screens if "triage: 1,234 not finished" in screen[0])
    shown.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(shown.process.wait(), 30) == 0
    asyncio.get_running_loop().remove_reader(shown.master)
    os.close(shown.master)
    assert max(map(len, last)) <= columns
    assert not any("…" in line for line in last)
    rows = [line.split() for line in last if re.match(r"\s+\d+\s", line)]
    assert [row[0] for row in rows] == [str(number) for number in range(8)]
    assert sum(int(row[1].replace(",", "")) for row in rows) == 1_234


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1", "Kafka cannot be reached"),
        ("POSTGRES__DSN", "postgresql://nobody@127.0.0.1:1/none", "PostgreSQL"),
    ],
)
async def test_what_is_away_is_named(
    variable: str,
    value: str,
    sentence: str,
    connection: KafkaConnection,
    postgres_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)
    monkeypatch.setenv("SWITCHYARD_POSTGRES__DSN", postgres_dsn)
    monkeypatch.setenv(f"SWITCHYARD_{variable}", value)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["lag", "triage"])
    assert isinstance(done.exception, SupportError)
    assert sentence in str(done.exception)
    assert exit_code(done.exception) == 1
