"""What the figures were measured with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("aiokafka", "asyncpg", "faststream", "faust-streaming", "uvloop", "pydantic")


def installed() -> dict[str, str]:
    """What the figures were measured with: Python, the libraries, and the processor."""
    found = {"python": platform.python_version(), "cores": str(os.cpu_count()), "cpu": _processor()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
