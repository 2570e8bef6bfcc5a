"""Databases of their own for the slices that settle: made from one template, dropped at the end."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.step_sql import TABLES
from state.migrate import migrate


class Databases:
    """Makes databases that hold our schema and the tables of the hand-written steps."""

    def __init__(self, dsn: str, template: str) -> None:
        self._dsn = dsn
        self._template = template

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """The address of a new database, dropped afterwards whoever is still connected to it."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        await execute(self._dsn, f"CREATE DATABASE {name} TEMPLATE {self._template}")
        try:
            yield in_database(self._dsn, name)
        finally:
            await execute(self._dsn, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def open_databases(dsn: str) -> AsyncIterator[Databases]:
    """Make the template; drop it at the end. The role must be allowed to create databases."""
    template = f"bench_template_{uuid.uuid4().hex[:12]}"
    await execute(dsn, f"CREATE DATABASE {template}")
    try:
        await migrate(in_database(dsn, template))
        await execute(in_database(dsn, template), TABLES)
        yield Databases(dsn, template)
    finally:
        await execute(dsn, f"DROP DATABASE {template} WITH (FORCE)")


async def execute(dsn: str, sql: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def number(dsn: str, sql: str, *arguments: object) -> int:
    """The one number that a query answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql, *arguments) or 0)
    finally:
        await connection.close()


def in_database(dsn: str, name: str) -> str:
    """The same server and role, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
