"""`switchyard up` and the commands beside it, as a newcomer uses them: whole processes, nothing but wheels."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.demo.tickets import sample_tickets
from ops.embedded import proc
from ops.wiring import AGENTS
from tests.services.reaper import Reaper

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
LIMIT_S = 180


@dataclass
class Up:
    """A running `switchyard up`, and the commands that reach it."""

    process: subprocess.Popen[str]
    addresses: dict[str, str]
    directory: Path

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command against it; returns what it printed, or what it complained about."""
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=300,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    @property
    def environment(self) -> dict[str, str]:
        """What points a command at it."""
        return clean_environment() | {
            "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": self.addresses["kafka"],
            "SWITCHYARD_POSTGRES__DSN": self.addresses["postgres"],
            "SWITCHYARD_REDIS__URL": self.addresses["redis"],
        }

    def until_ticket(self, ticket_id: str, rounds: int = 1) -> dict[str, Any]:
        """The ticket as `switchyard ticket` tells it, once that many rounds are closed."""
        began = time.monotonic()
        while time.monotonic() - began < LIMIT_S:
            done = subprocess.run(
                [sys.executable, "-m", "ops.cli", "ticket", ticket_id, "--json"],
                capture_output=True,
                text=True,
                env=self.environment,
                timeout=180,
            )
            found = json.loads(done.stdout) if done.returncode == 0 else None
            if found and sum(r["desk"] == "closed" for r in found["ticket"]["rounds"]) >= rounds:
                return found
        raise AssertionError(f"{ticket_id} has no {rounds} closed rounds: {found}")

    def members(self) -> list[psutil.Process]:
        """Every process that works for this directory."""
        marked = proc.members(self.directory.resolve())
        return [p for p in psutil.process_iter() if str(self.directory) in _words(p) or p.pid in marked]

    def workers(self, agent: str) -> set[int]:
        """The worker processes of an agent."""
        return {p.pid for p in self.members() if f"ops.supervised {agent} " in _words(p)}

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once the condition holds."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < LIMIT_S, f"{what} did not come about within {LIMIT_S} s"
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SWITCHYARD_") and not k.endswith("_API_KEY")}


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's own: as root, another pytest would take PostgreSQL's way to that away."""
    with tempfile.TemporaryDirectory(prefix="switchyard test ") as folder:
        yield Path(folder, "a data directory")


@pytest.fixture
def start(directory: Path, reaper: Reaper) -> Iterator[Any]:
    """Starts `switchyard up --json` on the directory; whatever still runs at the end is killed."""
    started: list[Up] = []

    def up() -> Up:
        log = (directory.parent / "up.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "up", "--json", "--data-dir", str(directory)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean_environment(),
            start_new_session=True,
        )
        reaper.watch(process.pid)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (directory.parent / "up.log").read_text()[-3000:]
        started.append(Up(process, json.loads(line), directory))
        return started[-1]

    yield up
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        reaper.forget(one.process.pid)


def publish(up: Up, *tickets: dict[str, Any]) -> None:
    file = up.directory.parent / "tickets.jsonl"
    file.write_text("\n".join(map(json.dumps, tickets)))
    assert json.loads(up.run("publish", str(file), "--json")) == {"published": len(tickets)}


TICKET = {"ticket_id": "t1", "from_email": "nobody@example.com", "subject": "Hello", "body": "Where is my order?"}


def test_a_ticket_is_answered_and_found_again_after_a_stop_and_after_a_sigkill(start: Any) -> None:
    up = start()
    assert set(up.addresses) == {"kafka", "postgres", "redis"}
    publish(up, TICKET)
    answered = up.until_ticket("t1")
    assert [r["label"] for r in answered["ticket"]["rounds"]] == ["order_status"]
    assert answered["version"] == answered["ticket"]["version"] == 2
    assert {entry["what"] for entry in answered["timeline"]} == {"handled", "emitted", "effect", "model"}
    assert up.stop() == 0
    assert not up.members()

    again = start()
    assert again.addresses == up.addresses
    assert again.until_ticket("t1") == answered
    publish(again, TICKET | {"body": "It is order #W0000000"})
    assert again.until_ticket("t1", rounds=2)["version"] > answered["version"]
    for process in again.members():
        process.kill()
    again.process.wait(30)

    third = start()
    publish(third, TICKET | {"body": "Or is it order #W0000001?"}, TICKET)
    assert len(third.until_ticket("t1", rounds=3)["ticket"]["rounds"]) == 3
    assert third.stop(signal.SIGINT) == 0
    assert not third.members()


def test_it_keeps_as_many_workers_as_scale_says_also_after_a_restart_and_takes_all_along(start: Any) -> None:
    up = start()
    assert {agent: len(up.workers(agent)) for agent in AGENTS} == dict.fromkeys(AGENTS, 1)
    [first] = up.workers("triage")
    scaled = json.loads(up.run("scale", "triage", "2", "--by", "ada", "--json"))
    assert (scaled["before"], scaled["workers"]) == (None, 2)
    up.until(lambda: len(up.workers("triage")) == 2, "a second worker of triage")
    assert first in up.workers("triage")
    os.kill(first, signal.SIGKILL)
    up.until(lambda: len(up.workers("triage") - {first}) == 2, "another worker in place of the first")
    up.process.kill()
    up.until(lambda: not up.members(), "the end of everybody")

    again = start()
    again.until(lambda: len(again.workers("triage")) == 2, "two workers of triage")
    again.run("scale", "triage", "1")
    again.until(lambda: len(again.workers("triage")) == 1, "the drain of the second one")
    assert again.stop(signal.SIGINT) == 0
    assert not again.members()


@pytest.mark.timeout(600)
def test_what_the_embedded_stack_decided_is_decided_again_as_it_was(start: Any, tmp_path: Path) -> None:
    up = start()
    tickets = [ticket for ticket in sample_tickets() if ticket.then][:2]
    publish(up, *(ticket.first for ticket in tickets))
    ids = [str(ticket.first["ticket_id"]) for ticket in tickets]
    for ticket_id in ids:
        up.until_ticket(ticket_id)
    publish(up, *(ticket.then[0] for ticket in tickets))
    for ticket_id in ids:
        up.until_ticket(ticket_id, rounds=2)
    page = tmp_path / "report.html"
    told = up.run("replay", "support.tickets.v1", "--from", "-1h", "--fail-on-diff", "--html", str(page), "--json")
    report = json.loads(told)
    assert report["totals"]["same"] == report["totals"]["tickets"] == len(ids), told
    assert page.read_text().startswith("<!doctype html>")
    from_the_end = json.loads(up.run("ticket", ids[0], "--json"))["timeline"]
    last = max(entry["step"] for entry in from_the_end if "step" in entry)
    assert json.loads(up.run("ticket", ids[0], "--replay-from", str(last), "--json"))["steps"] == 1


def test_commands_say_in_one_sentence_what_is_wrong(start: Any, tmp_path: Path) -> None:
    up = start()
    assert "there is no ticket 'none'" in up.run("ticket", "none", code=1)
    assert "there is no agent 'sales'" in up.run("run", "sales", code=2)
    second = up.run("up", "--data-dir", str(up.directory), code=2)
    assert str(up.process.pid) in second
    assert len(second.strip().splitlines()) == 1
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"ticket_id": "x"}')
    assert "line 1: body" in up.run("publish", str(bad), code=2)
    assert "users.jsonl" in up.run("shop", "load", str(tmp_path), code=2)
    assert {row["change"] for row in json.loads(up.run("topics", "apply", "--json"))} == {"unchanged"}
    taken = up.addresses["kafka"].rpartition(":")[2]
    elsewhere = up.run("up", "--data-dir", str(tmp_path / "other"), "--kafka-port", taken, code=2)
    assert taken in elsewhere
    assert "--kafka-port" in elsewhere


def test_the_demo_ends_with_one_outcome_a_round(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "demo", "--json"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert {row["outcomes"] for row in report["rows"]} == {1}
    assert {"answered", "acted", "refused", "needs_customer", "escalated"} <= {r["disposition"] for r in report["rows"]}
