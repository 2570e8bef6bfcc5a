import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from contracts.errors import Misconfigured, StoreUnavailable
from ops.posts import Patience
from ops.settings import read_settings
from ops.supervised import own_settings
from ops.supervisor import Supervisor, supervising
from tests.unit.bus.kit import until

CHILD = str(Path(__file__).with_name("a_post.py"))
LIMIT_S = 20.0


class Yard:
    """A folder with posts, how many workers are wanted, and what the workers wrote down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wanted: dict[str, int] = {"lookup": 2}
        self.modes: Sequence[str] = ["works"]
        self.away = False
        self.asked = 0

    def command(self, agent: str, number: int, lock: int) -> list[str]:
        return [sys.executable, "-I", "-S", CHILD, agent, str(number), str(lock), str(self.folder), *self.modes]

    async def how_many(self) -> Mapping[str, int]:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("PostgreSQL is away")
        return self.wanted

    def supervisor(self, **patience: float) -> Supervisor:
        chosen = Patience(**({"stop_within_s": 5.0, "first_pause_s": 0.02} | patience))
        return Supervisor(self.folder, self.how_many, chosen, command=self.command, look_every_s=0.01)

    @contextlib.asynccontextmanager
    async def supervised(self, **patience: float) -> AsyncIterator[Supervisor]:
        supervisor, stopping, looked = self.supervisor(**patience), asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(supervisor.run(stopping, looked.set))
        try:
            await asyncio.wait_for(looked.wait(), LIMIT_S)
            yield supervisor
        finally:
            stopping.set()
            await asyncio.wait_for(task, LIMIT_S)

    def lines(self, agent: str, number: int) -> list[list[str]]:
        book = self.folder / f"{agent}-{number}.book"
        return [line.split() for line in book.read_text().splitlines()] if book.exists() else []

    def starts(self, number: int, agent: str = "lookup") -> list[int]:
        return [int(line[1]) for line in self.lines(agent, number) if line[0] == "started"]

    def alive(self) -> set[int]:
        started = [pid for n in range(1, 9) for agent in ("lookup", "triage") for pid in self.starts(n, agent)]
        return {pid for pid in started if _is_alive(pid)}

    async def until_alive(self, count: int) -> set[int]:
        await until(lambda: len(self.alive()) == count, limit_s=LIMIT_S)
        return self.alive()


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    for pid in yard.alive():
        os.kill(pid, signal.SIGKILL)


async def test_as_many_are_kept_up_as_are_wanted_and_the_end_drains_them(yard: Yard) -> None:
    yard.wanted = {"lookup": 2, "triage": 1}
    async with yard.supervised():
        await yard.until_alive(3)
        yard.wanted = {"lookup": 4, "triage": 0}
        await until(lambda: len(yard.starts(4)) == 1 and ["asked"] in yard.lines("triage", 1), limit_s=LIMIT_S)
        await yard.until_alive(4)
    assert yard.alive() == set()
    assert all(yard.lines("lookup", n)[-1] == ["asked"] for n in (1, 2, 3, 4))


async def test_of_too_many_the_last_are_drained_and_the_others_go_on(yard: Yard) -> None:
    yard.wanted = {"lookup": 3}
    async with yard.supervised():
        await yard.until_alive(3)
        yard.wanted = {"lookup": 1}
        assert await yard.until_alive(1) == {*yard.starts(1)}
        assert len(yard.starts(1)) == 1


async def test_one_that_crashes_is_started_again_after_a_growing_pause(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    yard.wanted, yard.modes = {"lookup": 1}, ["dies", "dies", "dies", "works"]
    async with yard.supervised(first_pause_s=0.2):
        await until(lambda: len(yard.starts(1)) == 4, limit_s=LIMIT_S)
        await yard.until_alive(1)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 3
    assert all("worker 1 of lookup ended by itself" in line for line in told)
    pauses = [float(re.findall(r"again in ([\d.]+) s", line)[0]) for line in told]  # to a tenth of a second
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[2]
    started = [float(line[2]) for line in yard.lines("lookup", 1) if line[0] == "started"]
    assert all(later - earlier > pause - 0.1 for (earlier, later), pause in zip(pairwise(started), pauses, strict=True))


async def test_one_that_does_not_drain_in_time_is_killed(yard: Yard) -> None:
    yard.modes = ["is stubborn"]
    async with yard.supervised(stop_within_s=0.2):
        await yard.until_alive(2)
    assert yard.alive() == set()


async def test_workers_outlive_a_supervisor_and_the_next_one_adopts_them(yard: Yard) -> None:
    first = asyncio.create_task(yard.supervisor().run(asyncio.Event(), lambda: None))
    before = await yard.until_alive(2)
    first.cancel()  # as SIGKILL ends it: at once, without a word to the workers
    await asyncio.wait({first})
    assert yard.alive() == before
    yard.wanted = {"lookup": 3}
    async with yard.supervised() as second:
        assert before < await yard.until_alive(3)
        os.kill(yard.starts(2)[0], signal.SIGKILL)
        await until(lambda: len(yard.starts(2)) == 2, limit_s=LIMIT_S)
        await until(lambda: len(second.pids()) == 3, limit_s=LIMIT_S)
        assert len(yard.starts(1)) == 1
    assert yard.alive() == set()


async def test_while_nobody_can_say_what_is_wanted_all_stays_as_it_is(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    async with yard.supervised():
        before = await yard.until_alive(2)
        yard.away, asked = True, yard.asked
        os.kill(min(before), signal.SIGKILL)
        await until(lambda: yard.asked > asked + 3)
        await yard.until_alive(2)
    assert sum("PostgreSQL is away" in message for message in caplog.messages) == 1


def test_each_worker_has_a_kafka_instance_id_of_its_own_where_there_are_any() -> None:
    settings = read_settings({"kafka": {"instance_id": "box"}})
    assert [own_settings(settings, number).kafka.instance_id for number in (1, 2)] == ["box-1", "box-2"]
    assert own_settings(read_settings({}), 1).kafka.instance_id is None


def test_a_folder_has_one_supervisor(tmp_path: Path) -> None:
    with supervising(tmp_path), pytest.raises(Misconfigured, match=f"process {os.getpid()}"), supervising(tmp_path):
        pass
    with supervising(tmp_path):
        pass
