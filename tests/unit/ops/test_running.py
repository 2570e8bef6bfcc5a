import asyncio
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import uvloop

from contracts.errors import EngineStuck, Misconfigured, StoreUnavailable, SupportError
from ops.running import run, told_in_a_sentence

WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None\n"
COMMAND = """
import asyncio, time
from ops.running import run, until_signalled

async def serve(stopping):
    print("up", flush=True)
    {body}

run(until_signalled(serve, at_once=lambda: print("at once", flush=True)))
print("drained", flush=True)
"""


def command(body: str, *, with_uvloop: bool) -> "subprocess.Popen[str]":
    """A process that has installed its signal handlers and now does `body`."""
    source = ("" if with_uvloop else WITHOUT_UVLOOP) + textwrap.dedent(COMMAND).format(body=body)
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def with_uvloop(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_a_command_runs_on_uvloop_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(loop_module()) == uvloop.__name__
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(loop_module()) == "asyncio"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_stop(with_uvloop: bool, number: signal.Signals) -> None:
    with command("await stopping.wait()", with_uvloop=with_uvloop) as process:
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "drained\n"


@pytest.mark.parametrize("body", ["await asyncio.sleep(60)", "time.sleep(60)"], ids=["free loop", "blocked loop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(with_uvloop: bool, body: str, number: signal.Signals) -> None:
    with command(body, with_uvloop=with_uvloop) as process:
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 10:
            time.sleep(0.1)  # two signals that arrive together are one
            process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert process.stdout is not None
        assert process.stdout.read() == "at once\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(Misconfigured("m"), 2), (EngineStuck("s"), 70), (StoreUnavailable("u"), 1), (SupportError(), 1)],
)
def test_an_error_of_ours_is_one_sentence_and_a_code(
    error: SupportError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, told_in_a_sentence():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr().err == f"switchyard: {error}\n"
