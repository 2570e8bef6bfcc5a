"""The embedded stack's workers: they come up and drain while the services are there, and say why when they cannot."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from contracts.control import Scale
from ops.embedded import proc
from ops.embedded.process import DidNotStart
from ops.embedded.stack import EmbeddedStack
from ops.posts import Command
from ops.settings import Settings, read_settings
from ops.staffing import staffed
from ops.wiring import AGENTS, database
from state.scales import PostgresScales

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SPEAKS = """
import asyncio, os, signal, sys
from contracts.control import Mode, Presence
from state.controls import PostgresControls
from state.pool import open_pool

async def tell(agent: str, mode: Mode) -> None:
    async with open_pool(os.environ["DSN"]) as pool:
        me = Presence("w", agent, "v1", "host", os.getpid(), mode, 1, 0, 0, 0.0)
        await PostgresControls(pool).report(me)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.pwrite(int(sys.argv[3]), str(os.getpid()).encode(), 0)
asyncio.run(tell(sys.argv[1], Mode.RUNNING))
signal.sigwait([signal.SIGTERM])
asyncio.run(tell(sys.argv[1], Mode.DRAINED))
print("drained", flush=True)
"""


def python(code: str) -> Command:
    def command(agent: str, number: int, lock: int) -> Sequence[str]:
        return [sys.executable, "-c", code, agent, str(number), str(lock)]

    return command


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not pytest's own: as root, another pytest would take PostgreSQL's way to that away."""
    with tempfile.TemporaryDirectory(prefix="switchyard-test-") as directory:
        yield Path(directory)
        assert proc.members(Path(directory)) == []


@contextlib.asynccontextmanager
async def stack_in(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[EmbeddedStack, Settings]]:
    async with EmbeddedStack(data_dir, with_standin=False) as stack:
        monkeypatch.setenv("DSN", stack.addresses.postgres)
        yield stack, read_settings({"postgres": {"dsn": stack.addresses.postgres}})


def last_lines(data_dir: Path) -> dict[str, str]:
    logs = {path.stem: path.read_text().splitlines() for path in (data_dir / "workers").glob("*.log")}
    return {name: lines[-1] if lines else "" for name, lines in logs.items()}


async def test_workers_are_there_inside_and_drain_while_the_services_are_still_up(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack_in(data_dir, monkeypatch) as (stack, settings):
        services = len(proc.members(data_dir))
        async with staffed(stack, settings, command=python(SPEAKS)):
            assert len(proc.members(data_dir)) == services + len(AGENTS)
        assert last_lines(data_dir) == dict.fromkeys((f"{agent}-1" for agent in AGENTS), "drained")


async def test_an_agent_that_is_to_have_no_workers_is_not_waited_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack_in(data_dir, monkeypatch) as (stack, settings):
        async with database(settings) as pool:
            for agent in AGENTS:
                await PostgresScales(pool).decide(Scale(agent, int(agent == "triage"), "ada"))
        async with staffed(stack, settings, command=python(SPEAKS)):
            assert set(last_lines(data_dir)) == {"triage-1"}


async def test_a_worker_that_cannot_start_says_why_and_the_others_are_drained(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import sys\nif sys.argv[1] == 'lookup': sys.exit('no model can answer')\n{SPEAKS}"
    async with stack_in(data_dir, monkeypatch) as (stack, settings):
        with pytest.raises(DidNotStart, match=r"(?s)^lookup did not come up; .*no model can answer"):
            await asyncio.wait_for(staffed(stack, settings, command=python(code)).__aenter__(), 60)
        assert last_lines(data_dir)["triage-1"] == "drained"
