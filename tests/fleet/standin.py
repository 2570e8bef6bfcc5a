"""`python -m tests.fleet.standin`: the model stand-in with answers as long as the question asks for."""

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

from llm.standin.faults import Faults
from llm.standin.ledger import Ledger
from llm.standin.server import create_app, running


def echo(title: str, system: str, content: str) -> dict[str, Any]:
    """`CHARS words…`: an answer of about so many characters."""
    return {"text": "x" * int(content.split(maxsplit=1)[0])}


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ledger = Ledger(options.ledger)
    app = create_app(echo, ledger=ledger, faults=Faults(), latency_s=options.latency_s)
    async with running(app) as url:
        print(url, flush=True)
        await stop.wait()
    ledger.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--latency-s", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args()))
