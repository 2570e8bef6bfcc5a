import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Misconfigured, SupportError
from ops.processes import Program, Workers, program
from ops.settings import read_settings
from tests.unit.bus.kit import until

CHILD = str(Path(__file__).with_name("a_child.py"))


class Crew:
    """Workers under way and what they wrote down."""

    def __init__(self, folder: Path, *modes: str, of_worker: dict[int, str] | None = None, **patience: float) -> None:
        self.folder = folder
        self.ready: list[bool] = []
        self.stopping = asyncio.Event()
        self.count = 3
        own = of_worker or {}

        def command(number: int) -> list[str]:
            chosen = [own[number]] if number in own else modes
            return [sys.executable, "-I", "-S", CHILD, str(number), str(folder), *chosen]

        options: dict[str, Any] = {"stop_within_s": 5.0, "first_pause_s": 0.02, **patience}
        self.workers = Workers(Program("lookup", command, lambda _: os.environ, **options), self.count)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.workers.run(self.stopping, lambda: self.ready.append(True)))
        try:
            yield task
        finally:
            self.stopping.set()
            await asyncio.wait([task])
            assert not any(_is_alive(pid) for pid in self.pids())

    def lines(self, number: int) -> list[list[str]]:
        book = self.folder / str(number)
        return [line.split() for line in book.read_text().splitlines()] if book.exists() else []

    def starts(self, number: int) -> list[float]:
        return [float(line[2]) for line in self.lines(number) if line[0] == "started"]

    def pids(self) -> list[int]:
        numbers = range(1, self.count + 1)
        return [int(line[1]) for n in numbers for line in self.lines(n) if line[0] == "started"]

    def drained(self) -> list[int]:
        return [n for n in range(1, self.count + 1) if ["drained"] in self.lines(n)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_ready_is_told_once_all_are_and_a_stop_drains_them(tmp_path: Path) -> None:
    crew = Crew(tmp_path, "works")
    async with crew.running() as running:
        await until(lambda: bool(crew.ready))
        crew.stopping.set()
        await running
    assert crew.ready == [True]
    assert crew.drained() == [1, 2, 3]


async def test_one_that_dies_by_itself_is_started_again_after_a_growing_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew(tmp_path, "dies", "is killed", "dies", "works", first_pause_s=0.2)
    async with crew.running():
        await until(lambda: bool(crew.ready), limit_s=20)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 9
    assert any("worker 2 of lookup ended by itself (exit code 1)" in line for line in told)
    assert any("signal 9" in line for line in told)
    assert sum("PostgreSQL is away" in line for line in told) == 6
    first, second, third, fourth = crew.starts(2)
    assert 0.1 <= second - first < third - second < fourth - third


async def test_one_that_is_misconfigured_ends_all_with_its_sentence(tmp_path: Path) -> None:
    crew = Crew(tmp_path, "works", of_worker={2: "misconfigured"})
    async with crew.running() as running:
        with pytest.raises(Misconfigured, match="the topic is missing"):
            await running
    assert len(crew.starts(2)) == 1
    assert crew.ready == []


async def test_one_that_does_not_stop_in_time_is_killed_and_said_to_be(tmp_path: Path) -> None:
    crew = Crew(tmp_path, "works", of_worker={3: "is stubborn"}, stop_within_s=0.3)
    async with crew.running() as running:
        await until(lambda: bool(crew.ready))
        crew.stopping.set()
        with pytest.raises(SupportError, match=r"worker 3 of lookup did not stop within 0\.3 s and was killed"):
            await running
    assert crew.drained() == [1, 2]


async def test_all_can_be_ended_at_once(tmp_path: Path) -> None:
    crew = Crew(tmp_path, "is stubborn")
    async with crew.running():
        await until(lambda: bool(crew.ready))
        crew.stopping.set()
        crew.workers.kill()
    assert crew.drained() == []


def test_each_worker_is_a_static_member_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_KAFKA__INSTANCE_ID", "host-a")
    of_agent = program("lookup", read_settings())
    assert [of_agent.environment(n)["SWITCHYARD_KAFKA__INSTANCE_ID"] for n in (1, 2)] == ["host-a-1", "host-a-2"]
    monkeypatch.delenv("SWITCHYARD_KAFKA__INSTANCE_ID")
    assert "SWITCHYARD_KAFKA__INSTANCE_ID" not in program("lookup", read_settings()).environment(1)
