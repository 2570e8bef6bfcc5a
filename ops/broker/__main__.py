"""Run the embedded broker in a process of its own: `python -m ops.broker --data-dir DIR`."""

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from ops.broker.journal import DamagedJournal
from ops.broker.server import DirectoryInUse, EmbeddedBroker

_CANNOT_START = 1
_DIRECTORY_IN_USE = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Exit codes: 0 stopped, 1 cannot start, 3 the data directory is in use."""
    arguments = _parsed(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    try:
        uvloop.run(_serve(arguments))
    except DirectoryInUse as error:
        return _ended(error, _DIRECTORY_IN_USE)
    except (OSError, DamagedJournal) as error:
        return _ended(error, _CANNOT_START)
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.broker", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="holds everything; one broker at a time")
    parser.add_argument("--host", default="127.0.0.1", help="there is no authentication: leave it on loopback")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="the port is written here once clients may connect")
    parser.add_argument("--fsync", action="store_true", help="acknowledge only what is on the disk (slow)")
    return parser.parse_args(argv)


async def _serve(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    broker = EmbeddedBroker(arguments.data_dir, arguments.host, arguments.port, fsync=arguments.fsync)
    await broker.start()
    if arguments.port_file:
        _write_port(arguments.port_file, broker.bootstrap_servers.rpartition(":")[2])
    await stopping.wait()
    await broker.stop()


def _write_port(path: Path, port: str) -> None:
    """Whole or not at all: somebody waits for this file."""
    new = path.with_name(path.name + ".new")
    new.write_text(port + "\n")
    new.replace(path)


def _ended(error: Exception, code: int) -> int:
    print(f"broker: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
