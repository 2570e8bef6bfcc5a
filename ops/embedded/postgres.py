"""PostgreSQL from its wheel, as a child of our own: the wheel's own way leaves a server behind a killed owner."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from contracts.errors import Misconfigured
from ops.embedded import proc
from ops.embedded.account import account_for, let_in, let_read
from ops.embedded.installed import postgres_installation
from ops.embedded.password import password_kept_in
from ops.embedded.ports import LOOPBACK
from ops.embedded.process import OUR_OWN, DidNotStart, Program, spawn
from ops.logs import tail

MAJOR = "18"
_STATUS_LINE = 7  # of postmaster.pid; what `pg_ctl --wait` looks at too
_CREATE_WITHIN_S = 120.0


class Postgres:
    """A cluster in `DATA_DIR/postgres`. It listens on the loopback address alone and asks for a password."""

    def __init__(self, stack_dir: Path, port: int, log: Callable[[str], None]) -> None:
        self._stack_dir = stack_dir
        self._port = port
        self._log = log
        self._cluster = stack_dir / "postgres"
        self._password_file = stack_dir / "password"
        self._installation = postgres_installation()
        self._account = account_for(self._cluster)
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    async def create(self) -> str:
        """Make the cluster unless it is there; return the password. Raises Misconfigured: it is not one of ours."""
        if self._account != OUR_OWN:
            let_in([self._cluster, self._installation], self._log)
            let_read(self._installation)
        if not self._cluster.exists():
            await self._create()
        _require_cluster(self._cluster, self._password_file)
        return password_kept_in(self._password_file, self._account)

    def program(self) -> Program:
        """How the server is run."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self._port,
            "unix_socket_directories": "",  # a data directory may lie deeper than a socket's path may be long
            "max_connections": 100,
            "io_method": "sync",  # saves three processes that only big scans would use
            "logging_collector": "off",
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=[str(self._installation / "bin" / "postgres"), "-D", str(self._cluster), *arguments],
            ready=self._is_ready,
            env=self._env,
            cwd=Path("/"),
            account=self._account,
            prepare=self._forget_the_last_server,
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
            kill_signal=signal.SIGQUIT,  # "immediate": takes its own children along, and leaves a log to recover from
            stop_within_s=30,
        )

    async def _create(self) -> None:
        """Make it under another name first: initdb cut short leaves what looks like a cluster and is none."""
        self._log("creating the PostgreSQL cluster")
        draft = self._cluster.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        os.chown(draft, *self._account)
        password_kept_in(self._password_file, self._account)
        await self._initdb(draft)
        os.replace(draft, self._cluster)

    async def _initdb(self, directory: Path) -> None:
        command = [
            *(str(self._installation / "bin" / "initdb"), "-D", str(directory), "--username=postgres"),
            *("--auth=scram-sha-256", f"--pwfile={self._password_file}", "--encoding=UTF8"),
            # the same order and case rules on every machine, whatever its locales
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        with tempfile.NamedTemporaryFile() as output:
            process = await spawn(
                command, self._stack_dir, output.fileno(), env=self._env, cwd=Path("/"), account=self._account
            )
            if await _exit_code(process) != 0:
                raise DidNotStart("the PostgreSQL cluster cannot be created:\n" + "\n".join(tail(Path(output.name))))

    async def _is_ready(self, pid: int) -> bool:
        lines = _postmaster_file(self._cluster)
        return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"

    async def _forget_the_last_server(self) -> None:
        """End what is left of a server that was killed, and its lock, whose pid may be anybody's by now."""
        left = proc.working_in(self._cluster)
        if left:
            self._log(f"ending {len(left)} processes that a killed PostgreSQL left behind")
            await proc.end(left)
        if proc.PROC.is_dir():  # elsewhere nobody knows whether a server still runs, and PostgreSQL itself asks
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)


def dsn(port: int, password: str) -> str:
    """How to reach the database, as asyncpg, psql and JDBC's likes read it."""
    return f"postgresql://postgres:{password}@{LOOPBACK}:{port}/postgres"


async def _exit_code(process: asyncio.subprocess.Process) -> int | None:
    try:
        return await asyncio.wait_for(process.wait(), _CREATE_WITHIN_S)
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()


def _require_cluster(cluster: Path, password_file: Path) -> None:
    try:
        version = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError as error:
        raise Misconfigured(f"{cluster} is there but holds no PostgreSQL cluster: choose another --data-dir") from error
    except OSError as error:
        raise Misconfigured(f"{cluster} belongs to another user: {error.strerror}") from error
    if version != MAJOR:
        raise Misconfigured(
            f"{cluster} was made by PostgreSQL {version} and this is {MAJOR}: upgrade it, or choose another --data-dir"
        )
    if not password_file.exists():
        raise Misconfigured(f"{password_file}, which the cluster beside it needs, is missing: put it back")


def _postmaster_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []
