"""The way into PostgreSQL: a pool whose every wait is bounded, and the one place that names asyncpg's errors."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import asyncpg

from contracts.errors import ContractBroken, Misconfigured, StoreUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 10.0  # waiting for a free connection; also bounds giving it back
COMMAND_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 5.0

# What bounds a session whose client was frozen or cut off while it held locks.
_SESSION = {
    "application_name": "switchyard",
    "statement_timeout": "20s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "20s",
    # A plan is made once a session, maybe while the tables are empty: it must be one that also holds when they are not.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",  # before version 18 that makes a plan look dear, which must not start the compiler
    "jit": "off",
}

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, after a failover
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidCachedStatementError,  # a migration went by
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError too
)


@asynccontextmanager
async def open_pool(
    dsn: str, *, min_size: int = 1, max_size: int = 10, session: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[asyncpg.Pool]:
    """A connected pool, closed at the end within bounds. `session`: further settings of each of its sessions.

    Raises Misconfigured: the DSN, the login or the database is wrong. StoreUnavailable: nobody answers.
    """
    with _starting():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            reset=_leave_as_it_is,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings={**_SESSION, **session},
        )
    try:
        yield pool
    finally:
        await _close(pool)


@asynccontextmanager
async def open_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """One connection of its own, without time limits on its statements. Raises as open_pool does."""
    with _starting():
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        yield connection
    finally:
        await _close(connection)


@asynccontextmanager
async def borrowed(pool: asyncpg.Pool) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
    """A connection of the pool; errors inside become ours, a broken integrity constraint excepted.

    Raises StoreUnavailable: not to be had in time, or lost; what the last statement did is then unknown.
    """
    with as_our_errors():
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            yield connection


@contextmanager
def as_our_errors() -> Iterator[None]:
    """Turn asyncpg's and the socket's errors into those of the contracts."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if isinstance(error, _AWAY):
            raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error
        if isinstance(error, asyncpg.DataError):  # its message may quote the data
            raise ContractBroken(f"PostgreSQL cannot hold a value: {type(error).__name__}") from error
        if isinstance(error, asyncpg.SyntaxOrAccessError):
            raise Misconfigured(f"the database's schema or grants do not fit this version: {error}") from error
        raise
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):  # an argument that does not fit its column
            raise ContractBroken(f"PostgreSQL cannot hold a value: {type(error).__name__}") from error
        raise StoreUnavailable(f"PostgreSQL: {error}") from error
    except _AWAY as error:
        raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if "the handler is closed" not in str(error):  # so uvloop tells of a connection that was lost just now
            raise
        raise StoreUnavailable("PostgreSQL: the connection was lost") from error


@contextmanager
def _starting() -> Iterator[None]:
    try:
        with as_our_errors():
            try:
                yield
            except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
                raise Misconfigured(f"PostgreSQL refuses the connection: {error}") from error
            except ssl.SSLCertVerificationError as error:
                raise Misconfigured(f"PostgreSQL's certificate is not trusted: {error.verify_message}") from error
    except (ValueError, ContractBroken):
        # The cause may quote the DSN, password and all: it is left out.
        raise Misconfigured(
            "the PostgreSQL DSN is malformed; it should look like postgresql://user@host:5432/database"
        ) from None


async def _leave_as_it_is(_connection: Any) -> None:
    """Spare the reset query at each release: nothing here leaves session state behind.

    asyncpg itself still rolls an open transaction back.
    """


async def _close(closing: asyncpg.Pool | asyncpg.Connection) -> None:
    """Close within CLOSE_TIMEOUT_S, or cut: a frozen server would keep a polite close waiting for ever."""
    task = asyncio.ensure_future(closing.close())
    try:
        await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
    finally:
        if not task.done():
            closing.terminate()
            task.cancel()
    outcome = (await asyncio.gather(asyncio.wait_for(task, CLOSE_TIMEOUT_S), return_exceptions=True))[0]
    if outcome is not None:
        _log.warning("postgres connection cut instead of closed", extra={"error": type(outcome).__name__})
