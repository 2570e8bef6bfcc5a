"""`python -m llm.standin`: serves the stand-in on loopback until SIGINT or SIGTERM."""

import argparse
import asyncio
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from llm.standin.faults import Faults
from llm.standin.ledger import Ledger
from llm.standin.server import create_app, running
from llm.standin.wit import answer


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m llm.standin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="is written with the port once requests are taken")
    parser.add_argument("--ledger", type=Path, help="one JSON line a call is appended here")
    parser.add_argument("--latency-ms", type=float, default=0, help="how long every answer takes")
    parser.add_argument("--seed", type=int, default=0, help="decides which requests a share of faults strikes")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    ledger = Ledger(options.ledger)
    app = create_app(answer, ledger=ledger, faults=Faults(options.seed), latency_s=options.latency_ms / 1000)
    async with running(app, port=options.port) as url:
        if options.port_file is not None:
            _write_whole(options.port_file, str(urlsplit(url).port))
        print(url, flush=True)
        await stop.wait()
    ledger.close()


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


if __name__ == "__main__":
    main()
