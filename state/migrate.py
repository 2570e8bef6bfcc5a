"""Migrations: numbered SQL files, each applied once, in order, by one starter at a time."""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from contracts.errors import Misconfigured
from state.pool import as_our_errors, open_connection

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection | PoolConnectionProxy[asyncpg.Record]

DIRECTORY = Path(__file__).parent / "migrations"
LOCK = 0x5357_4954_4348  # any number that nobody else locks in this database
LOCK_TIMEOUT_S = 120.0

_log = logging.getLogger(__name__)
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_BOOKS = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its text, however its line ends are stored."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(database: "Connection | str", directory: Path = DIRECTORY) -> list[str]:
    """Bring the database of a DSN or a connection up to date; returns the names of the migrations applied.

    Safe to call from many starters at once. A database that is ahead of this code is left as it is.
    Raises Misconfigured: a file is missing, misnamed or was changed after it was applied; nothing is changed then.
    """
    migrations = read_migrations(directory)
    if not isinstance(database, str):
        return await _migrate(database, migrations)
    async with open_connection(database) as connection:
        return await _migrate(connection, migrations)


def read_migrations(directory: Path) -> Sequence[Migration]:
    """The files in order. Raises Misconfigured: a name or the numbering is not as it must be."""
    migrations = [_read(path) for path in sorted(directory.glob("*.sql"))]
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise Misconfigured(f"migration {expected:04} is missing: {migration.name} follows {expected - 1:04}")
    return migrations


def _read(path: Path) -> Migration:
    matched = _FILE_NAME.fullmatch(path.name)
    if matched is None:
        raise Misconfigured(f"{path.name} is not a name for a migration: it should look like 0001_what_it_does.sql")
    return Migration(int(matched[1]), path.stem, path.read_text(encoding="utf-8"))


async def _migrate(connection: "Connection", migrations: Sequence[Migration]) -> list[str]:
    with as_our_errors():
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK, timeout=LOCK_TIMEOUT_S)
        try:
            return await _apply_missing(connection, migrations)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


async def _apply_missing(connection: "Connection", migrations: Sequence[Migration]) -> list[str]:
    await connection.execute(_BOOKS)
    rows = await connection.fetch("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
    _refuse_another_history(rows, migrations)
    missing = migrations[len(rows) :]
    for migration in missing:
        await _apply(connection, migration)
    return [migration.name for migration in missing]


def _refuse_another_history(rows: Sequence[asyncpg.Record], migrations: Sequence[Migration]) -> None:
    for expected, row in enumerate(rows, start=1):
        if row["number"] != expected:
            raise Misconfigured(f"the database lacks migration {expected:04}, but has {row['name']}")
    for row, migration in zip(rows, migrations, strict=False):
        if row["checksum"] != migration.checksum:
            raise Misconfigured(
                f"migration {migration.name} is not the one applied to this database: "
                "undo the change and write a new migration instead"
            )


async def _apply(connection: "Connection", migration: Migration) -> None:
    async with connection.transaction():
        try:
            await connection.execute(migration.sql)
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise Misconfigured(f"migration {migration.name} fails on this database: {error}") from error
        await connection.execute(
            "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.checksum,
        )
    _log.info("migration applied", extra={"migration": migration.name})
