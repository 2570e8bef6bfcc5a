import asyncio

import pytest

from contracts.errors import StoreUnavailable
from state.pool import as_our_errors

uvloop = pytest.importorskip("uvloop", reason="the event loop of asyncio raises an OSError")


def test_a_connection_that_uvloop_lost_is_an_outage_and_no_bug() -> None:
    """Where asyncio raises an OSError, uvloop raises a RuntimeError: taken for a bug, it made dead letters."""

    async def write_to_a_closed_connection() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, *server.sockets[0].getsockname()
            )
            transport.abort()
            closed = asyncio.Event()
            asyncio.get_running_loop().call_soon(closed.set)
            await closed.wait()
            with as_our_errors():
                transport.writelines([b"x"])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(StoreUnavailable):
        runner.run(write_to_a_closed_connection())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), RecursionError("deep")])
def test_any_other_runtime_error_stays_what_it_is(error: RuntimeError) -> None:
    with pytest.raises(type(error)), as_our_errors():
        raise error
