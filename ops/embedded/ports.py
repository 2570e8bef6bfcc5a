"""The ports of a stack: chosen once, then kept, so that clients find it again after a restart."""

import json
import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from contracts.errors import Misconfigured

LOOPBACK = "127.0.0.1"
FREE_RANGE = range(20_000, 32_000)
"""Below the ports that Linux and macOS lend to outgoing connections, one of which could else take a kept port."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports asked for; None leaves the choice to the stack."""

    kafka: int | None = None
    postgres: int | None = None
    redis: int | None = None
    standin: int | None = None


@dataclass(frozen=True, slots=True)
class ChosenPorts:
    """Ports that were free when they were chosen."""

    kafka: int
    postgres: int
    redis: int
    standin: int


def choose(asked: Ports, kept_in: Path, log: Callable[[str], None]) -> ChosenPorts:
    """The port asked for, else the one kept from the last start if it is free, else any free one.

    A kept port that somebody else took is replaced and said so: what is stored names no port, so only clients
    that wrote the address down notice. Raises Misconfigured: a port asked for is taken.
    """
    kept = _read(kept_in)
    chosen: dict[str, int] = {}
    for service, port in asdict(asked).items():
        if port is not None:
            _require(service, port, chosen)
            chosen[service] = port
    for service in asdict(asked):
        if service not in chosen:
            chosen[service] = _kept_or_free(service, kept.get(service), chosen, log)
    _write(kept_in, chosen)
    return ChosenPorts(**chosen)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections still closing do not count
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError):
            return False
    return True


def _require(service: str, port: int, chosen: Mapping[str, int]) -> None:
    if port in chosen.values() or not is_free(port):
        raise Misconfigured(f"port {port} is taken or not allowed: choose another --{service}-port, or leave it out")


def _kept_or_free(service: str, kept: int | None, chosen: Mapping[str, int], log: Callable[[str], None]) -> int:
    if kept is not None and kept not in chosen.values() and is_free(kept):
        return kept
    port = next(p for p in random.sample(FREE_RANGE, len(FREE_RANGE)) if p not in chosen.values() and is_free(p))
    if kept is not None:
        log(f"port {kept}, which {service} had, is taken by another process: {service} is now on port {port}")
    return port


def _read(path: Path) -> dict[str, int]:
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # none yet, or damaged: choose anew
        return {}
    if not isinstance(kept, dict):
        return {}
    return {service: port for service, port in kept.items() if isinstance(port, int)}


def _write(path: Path, chosen: Mapping[str, int]) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(chosen, indent=2) + "\n")
    os.replace(draft, path)
