"""How a child is seen to be ready: by a file it writes, a port that answers, or what the port says."""

import asyncio
from contextlib import suppress
from pathlib import Path

from ops.embedded.ports import LOOPBACK

_ANSWER_WITHIN_S = 2.0


async def answers(port: int) -> bool:
    """Whether something accepts connections on a port of the loopback address."""
    return await says(port, b"", b"")


async def says(port: int, question: bytes, expected: bytes) -> bool:
    """Whether all that a port of the loopback address answers, until it hangs up, holds what is expected."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            return await _asked(port, question, expected)
    return False


async def _asked(port: int, question: bytes, expected: bytes) -> bool:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(question)
        return not expected or expected in await reader.read()
    finally:
        writer.close()


def written(path: Path) -> bool:
    """Whether a file is there and holds something."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
