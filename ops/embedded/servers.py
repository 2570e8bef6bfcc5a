"""The children that are Python of our own: the broker and the model stand-in."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.embedded.ports import LOOPBACK
from ops.embedded.process import Program
from ops.embedded.ready import answers, written

PYTHON = (sys.executable, "-P", "-m")  # -P: a folder here that is called like a package of ours is not meant


def broker(stack_dir: Path, port: int) -> Program:
    """How the broker is run on its data in `DATA_DIR/broker`."""
    arguments = ["--data-dir", str(stack_dir / "broker"), "--host", LOOPBACK, "--port", str(port)]
    return _server("broker", [*PYTHON, "ops.broker", *arguments], port, stack_dir)


def standin(stack_dir: Path, port: int) -> Program:
    """How the model stand-in is run; its ledger of calls is `DATA_DIR/standin/ledger.jsonl`."""
    arguments = ["--port", str(port), "--ledger", str(stack_dir / "standin" / "ledger.jsonl")]
    return _server("standin", [*PYTHON, "llm.standin", *arguments], port, stack_dir)


def _server(name: str, command: Sequence[str], port: int, stack_dir: Path) -> Program:
    port_file = stack_dir / name / "port"

    async def listens(_pid: int) -> bool:
        return written(port_file) and await answers(port)

    async def forget_the_last_run() -> None:
        _forget(port_file)

    return Program(
        name=name,
        command=[*command, "--port-file", str(port_file)],
        ready=listens,
        env=_environment(),
        prepare=forget_the_last_run,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}  # a log shows what was written last before a crash


def _forget(port_file: Path) -> None:
    port_file.parent.mkdir(mode=0o700, exist_ok=True)
    port_file.unlink(missing_ok=True)
