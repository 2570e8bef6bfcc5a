import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from ops.embedded.ports import FREE_RANGE, LOOPBACK, Ports, choose


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


def test_chosen_ports_are_distinct_and_none_that_outgoing_connections_may_get(tmp_path: Path) -> None:
    chosen = asdict(choose(Ports(), tmp_path / "ports.json", print)).values()
    assert len(set(chosen)) == 4
    assert all(port in FREE_RANGE for port in chosen)


def test_a_restart_keeps_its_ports(tmp_path: Path) -> None:
    kept_in = tmp_path / "ports.json"
    assert choose(Ports(), kept_in, print) == choose(Ports(), kept_in, print)


def test_a_port_asked_for_once_is_kept(tmp_path: Path) -> None:
    kept_in = tmp_path / "ports.json"
    asked = choose(Ports(), tmp_path / "others.json", print)
    choose(Ports(kafka=asked.kafka), kept_in, print)
    assert choose(Ports(), kept_in, print).kafka == asked.kafka


def test_a_kept_port_that_somebody_took_is_replaced_and_said_so(tmp_path: Path, taken_port: int) -> None:
    kept_in = tmp_path / "ports.json"
    before = choose(Ports(), kept_in, print)
    kept_in.write_text(json.dumps(asdict(replace(before, redis=taken_port))))
    said: list[str] = []
    after = choose(Ports(), kept_in, said.append)
    assert after.redis != taken_port
    assert replace(after, redis=before.redis) == before
    assert said == [
        f"port {taken_port}, which redis had, is taken by another process: redis is now on port {after.redis}"
    ]


def test_a_port_asked_for_that_is_taken_is_refused_naming_it_and_the_option(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(Misconfigured, match=rf"port {taken_port} is taken .* --postgres-port"):
        choose(Ports(postgres=taken_port), tmp_path / "ports.json", print)
    assert not (tmp_path / "ports.json").exists()


def test_one_port_for_two_services_is_refused(tmp_path: Path) -> None:
    free = choose(Ports(), tmp_path / "others.json", print).kafka
    with pytest.raises(Misconfigured, match=f"port {free}"):
        choose(Ports(kafka=free, redis=free), tmp_path / "ports.json", print)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"kafka": "x"}', '{"kafka": 99999}'])
def test_a_damaged_file_of_kept_ports_is_written_anew(tmp_path: Path, damage: str) -> None:
    kept_in = tmp_path / "ports.json"
    kept_in.write_text(damage)
    chosen = choose(Ports(), kept_in, print)
    assert json.loads(kept_in.read_text()) == asdict(chosen)
