import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from ops import logs
from ops.embedded import proc
from ops.embedded.process import Child, DidNotStart, Program

pytestmark = pytest.mark.system

OBEDIENT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print('ready', os.getpid(), flush=True)
signal.sigwait([signal.SIGTERM])
print('drained', flush=True)
"""
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', os.getpid(), flush=True)
signal.pause()
"""
PARENT = """
import os, signal, subprocess
subprocess.Popen(['sleep', '60'])
print('ready', os.getpid(), flush=True)
signal.pause()
"""
OWNER = """
import asyncio, sys
from pathlib import Path
from ops.embedded.process import Child, Program

async def own() -> None:
    log = Path(sys.argv[1], "logs", "child.log")
    async def said_ready(pid): return f"ready {pid}" in log.read_text()
    program = Program("child", [sys.executable, "-c", sys.argv[2]], said_ready)
    child = Child(program, Path(sys.argv[1]), print)
    await child.start()
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(own())
"""


async def said_ready(pid: int) -> bool:
    """Whether the process said so, in its log."""
    with suppress(OSError):  # it is gone
        return f"ready {pid}\n" in Path(f"/proc/{pid}/fd/1").read_text()
    return False


async def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    return not proc.memory_bytes(pid)


@asynccontextmanager
async def running(program: Program, directory: Path, log: Callable[[str], None] = print) -> AsyncIterator[Child]:
    child = Child(program, directory, log)
    async with AsyncExitStack() as after:
        after.push_async_callback(child.stop)
        await child.start()
        yield child


def python(code: str, **options: object) -> Program:
    return Program("child", [sys.executable, "-c", code], said_ready, **options)  # type: ignore[arg-type]


async def test_a_child_is_ready_when_it_says_so_and_drains_when_told_to_stop(tmp_path: Path) -> None:
    async with running(python(OBEDIENT), tmp_path) as child:
        pid = child.pid
        assert pid
    assert child.pid is None
    assert (tmp_path / "logs" / "child.log").read_text() == f"ready {pid}\ndrained\n"


async def test_a_child_that_does_not_come_up_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart) as failed:
        await Child(python("raise SystemExit('the disk is on fire')"), tmp_path, print).start()
    assert str(failed.value).endswith("child.log ends with:\nthe disk is on fire")


async def test_a_command_that_does_not_exist_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=r"cannot start: .*No such file"):
        await Child(Program("child", ["/no/such/binary"], said_ready), tmp_path, print).start()


async def test_a_child_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    child = Child(python("import time; print('busy', flush=True); time.sleep(60)", ready_within_s=0.5), tmp_path, print)
    with pytest.raises(DidNotStart, match=r"(?s)not ready within 0.5 s; .*busy"):
        await child.start()
    assert child.pid is None
    assert not proc.members(tmp_path)


async def test_a_start_that_is_called_off_leaves_nothing_running(tmp_path: Path) -> None:
    starting = asyncio.create_task(Child(python("import time; time.sleep(60)"), tmp_path, print).start())
    await until(lambda: bool(proc.members(tmp_path)))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not proc.members(tmp_path)


async def test_a_stubborn_child_is_killed_in_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    async with running(python(STUBBORN, stop_within_s=0.2), tmp_path, said.append):
        pass
    assert said == ["child did not stop within 0.2 s and was killed"]
    assert not proc.members(tmp_path)


async def test_a_child_that_dies_is_started_again_until_it_stays(tmp_path: Path) -> None:
    said: list[str] = []
    async with running(python(OBEDIENT), tmp_path, said.append) as child:
        first = child.pid
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: "child is up again" in said)
        assert child.pid not in (None, first)
    assert said[0] == "child ended unexpectedly (signal 9) and is started again in 0.2 s"


async def test_restarts_that_fail_come_at_growing_distances(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "works").touch()
    code = f"import os; os.stat({str(tmp_path / 'works')!r})\n{OBEDIENT}"
    async with running(python(code), tmp_path, said.append) as child:
        (tmp_path / "works").unlink()
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: len(said) >= 5)
    pauses = [float(sentence.split()[-2]) for sentence in said if "started again" in sentence]
    assert pauses[:3] == [0.2, 0.4, 0.8]


async def test_a_child_dies_with_its_killed_owner(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(tmp_path), STUBBORN), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(await owner.stdout.readline())
    owner.kill()
    await owner.wait()
    await until(lambda: gone(pid))


async def test_a_log_that_grew_too_long_is_set_aside_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(logs.LIMIT_BYTES + 1)
    async with running(python(OBEDIENT), tmp_path) as child:
        pid = child.pid
    assert log.read_text() == f"ready {pid}\ndrained\n"
    assert log.with_suffix(".log.1").stat().st_size == logs.LIMIT_BYTES + 1


async def test_members_and_trees_are_found_and_ended(tmp_path: Path) -> None:
    program = Program("child", [sys.executable, "-c", PARENT], said_ready)
    child = Child(program, tmp_path, print)
    await child.start()
    assert child.pid
    tree = proc.tree(child.pid)
    assert len(tree) == 2
    assert sorted(tree) == sorted(proc.members(tmp_path))
    assert all(proc.memory_bytes(pid) > 100_000 for pid in tree)
    await child.stop()
    assert proc.members(tmp_path) == tree[1:]  # the grandchild knows of no SIGTERM
    await proc.end(proc.members(tmp_path))
    assert not proc.members(tmp_path)


def test_processes_are_known_by_their_working_directory(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    limit = time.monotonic() + 10
    while proc.working_in(tmp_path) != [sleeper.pid]:
        assert time.monotonic() < limit
    sleeper.kill()
    sleeper.wait()
    assert proc.working_in(tmp_path) == []
