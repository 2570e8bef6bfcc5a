"""The ledger, and the stand-in as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm.standin.ledger import Ledger

ENTRY = {"paid": True, "model": "m", "request_digest": "ab" * 32, "input_tokens": 3, "output_tokens": 2}


def test_a_reopened_ledger_goes_on_counting(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")
    first.note(ENTRY)
    first.note({**ENTRY, "paid": False})

    second = Ledger(tmp_path / "ledger")
    second.note(ENTRY)

    assert second.entries() == [ENTRY, {**ENTRY, "paid": False}, ENTRY]
    assert second.summary() == {
        "calls": 3,
        "paid_calls": 2,
        "distinct_paid_requests": 1,
        "repeated_paid_calls": 1,
        "input_tokens": 6,
        "output_tokens": 4,
        "paid_calls_by_model": {"m": 2},
    }


def test_a_line_that_a_kill_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path).note(ENTRY)
    with path.open("ab") as file:
        file.write(b'{"paid": tr')

    ledger = Ledger(path)
    ledger.note(ENTRY)

    assert ledger.entries() == [ENTRY, ENTRY]


def test_a_ledger_without_a_file_tells_the_same(tmp_path: Path) -> None:
    in_memory, on_disk = Ledger(), Ledger(tmp_path / "ledger")
    for ledger in (in_memory, on_disk):
        ledger.note(ENTRY)
    assert in_memory.lines() == on_disk.lines()
    assert in_memory.summary() == on_disk.summary()


@contextmanager
def standin_process(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "llm.standin", "--port-file", str(port_file), "--ledger", str(folder / "ledger")]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        wait_until(port_file.exists)
        yield process, f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], limit_s: float = 20) -> None:
    give_up_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def ask(url: str) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    with httpx2.Client(trust_env=False) as http:
        return http.post(f"{url}/v1/chat/completions", json=body).raise_for_status().json()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_was_answered_before_a_sigkill_is_on_the_bill(tmp_path: Path) -> None:
    with standin_process(tmp_path) as (process, url):
        answered = [ask(url)["id"] for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with standin_process(tmp_path) as (_, url), httpx2.Client(trust_env=False) as http:
        answered.append(ask(url)["id"])
        entries = [json.loads(line) for line in http.get(f"{url}/ledger").text.splitlines()]
        assert http.get(f"{url}/ledger/summary").json()["paid_calls"] == 4
    assert [entry["id"] for entry in entries] == answered


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_sigterm_ends_the_process_in_good_order(tmp_path: Path) -> None:
    with standin_process(tmp_path, "--latency-ms", "50") as (process, url):
        started_s = time.monotonic()
        ask(url)
        assert time.monotonic() - started_s >= 0.05
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_the_stand_in_loads_no_sdk() -> None:
    code = (
        "import sys, llm.standin.__main__; print([m for m in sys.modules if m in ('anthropic', 'openai', 'pydantic')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout.strip() == "[]"
