"""Valkey from its wheel, with an append-only file, so that a restart finds its data again."""

import os
from pathlib import Path

from ops.embedded.installed import valkey_server
from ops.embedded.ports import LOOPBACK
from ops.embedded.process import Program
from ops.embedded.ready import says


def program(stack_dir: Path, port: int, password: str) -> Program:
    """How Valkey is run on its data in `DATA_DIR/valkey`."""
    directory = stack_dir / "valkey"
    config = directory / "valkey.conf"

    async def write_config() -> None:
        _write_privately(config, _config(directory, port, password))

    async def answers(_pid: int) -> bool:
        return await says(port, f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode(), b"+PONG")

    return Program(
        name="valkey", command=[str(valkey_server()), str(config)], ready=answers, cwd=Path("/"), prepare=write_config
    )


def url(port: int, password: str) -> str:
    """How to reach it."""
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def _write_privately(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _config(directory: Path, port: int, password: str) -> str:
    quoted = str(directory).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{quoted}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "set-proc-title no",  # it would overwrite the environment by which the stack knows its members
            "",
        ]
    )
