"""The children that are Python of our own: the broker, the model stand-in and the agents' workers."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from ops.embedded.ports import LOOPBACK
from ops.embedded.process import Program
from ops.embedded.ready import answers, written

READY_FILE = "SWITCHYARD_READY_FILE"
"""The environment variable that names the file into which a worker writes something once it takes records."""

PYTHON = (sys.executable, "-P", "-m")  # -P: a folder here that is called like a package of ours is not meant


def broker(stack_dir: Path, port: int) -> Program:
    """How the broker is run on its data in `DATA_DIR/broker`."""
    arguments = ["--data-dir", str(stack_dir / "broker"), "--host", LOOPBACK, "--port", str(port)]
    return _server("broker", [*PYTHON, "ops.broker", *arguments], port, stack_dir)


def standin(stack_dir: Path, port: int) -> Program:
    """How the model stand-in is run; its ledger of calls is `DATA_DIR/standin-ledger.jsonl`."""
    arguments = ["--port", str(port), "--ledger", str(stack_dir / "standin-ledger.jsonl")]
    return _server("standin", [*PYTHON, "llm.standin", *arguments], port, stack_dir)


def worker(name: str, command: Sequence[str], env: Mapping[str, str], stack_dir: Path, drain_s: float) -> Program:
    """How one worker is run; it drains on SIGTERM, for as long as it is given."""
    ready_file = stack_dir / "run" / f"{name}.ready"

    async def has_said_so(_pid: int) -> bool:
        return written(ready_file)

    return Program(
        name=name,
        command=command,
        ready=has_said_so,
        env={**_environment(), **env, READY_FILE: str(ready_file)},
        prepare=_forgetting(ready_file),
        stop_within_s=drain_s,
    )


def run_agent(agent: str) -> Sequence[str]:
    """The command that runs one worker of an agent."""
    return [*PYTHON, "ops.cli", "run", agent]


def _server(name: str, command: Sequence[str], port: int, stack_dir: Path) -> Program:
    port_file = stack_dir / "run" / f"{name}.port"

    async def listens(_pid: int) -> bool:
        return written(port_file) and await answers(port)

    return Program(
        name=name,
        command=[*command, "--port-file", str(port_file)],
        ready=listens,
        env=_environment(),
        prepare=_forgetting(port_file),
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}  # a log shows what was written last before a crash


def _forgetting(path: Path) -> Callable[[], Awaitable[None]]:
    """Remove what an earlier run wrote."""

    async def forget() -> None:
        _make_room_for(path)

    return forget


def _make_room_for(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
