"""How the database is: what a look at it from outside tells of the system that works on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from state.migrate import DIRECTORY, read_migrations
from state.pool import as_our_errors, open_connection

_NOW = """
SELECT clock_timestamp() AS now, has_schema_privilege(current_schema(), 'CREATE') AS may_create,
       to_regclass('schema_migrations') IS NOT NULL AS has_books
"""
_APPLIED = "SELECT number FROM schema_migrations ORDER BY number"
_VITALS = """
SELECT (SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float8 FROM outbox) AS oldest_outbox_s,
       (SELECT count(*) FROM outbox) AS outbox_rows,
       (SELECT count(*) FROM parked_tickets WHERE due_at < clock_timestamp() - make_interval(secs => $1)) AS overdue,
       (SELECT extract(epoch FROM clock_timestamp() - min(due_at))::float8 FROM parked_tickets) AS most_overdue_s
"""
_SPENT = """
SELECT scope, scope_id FROM budget_alerts
WHERE level >= 100 AND told_at > clock_timestamp() - interval '1 day'
ORDER BY told_at DESC
LIMIT 20
"""


@dataclass(frozen=True, slots=True)
class Vitals:
    """The database at one moment. Where migrations are missing, nothing below them is told."""

    now: datetime
    may_create: bool  # tables: migrations need it
    missing: Sequence[str]  # migrations, by name
    is_ahead: bool  # of this code
    outbox_rows: int = 0
    oldest_outbox_s: float = 0.0
    overdue: int = 0  # parked tickets whose time was over long ago
    most_overdue_s: float = 0.0
    spent: Sequence[str] = ()  # budgets that were used up within a day


async def read_vitals(dsn: str, *, overdue_after_s: float) -> Vitals:
    """Look, and change nothing. Raises StoreUnavailable: nobody answers. Misconfigured: it does not let us in."""
    async with open_connection(dsn) as connection:
        with as_our_errors():
            [(now, may_create, has_books)] = await connection.fetch(_NOW)
            applied = {row[0] for row in await connection.fetch(_APPLIED)} if has_books else set()
            migrations = read_migrations(DIRECTORY)
            missing = [migration.name for migration in migrations if migration.number not in applied]
            is_ahead = max(applied, default=0) > len(migrations)
            if missing:
                return Vitals(now, may_create, missing, is_ahead)
            [row] = await connection.fetch(_VITALS, overdue_after_s)
            spent = await connection.fetch(_SPENT)
    return Vitals(
        now,
        may_create,
        missing,
        is_ahead,
        row["outbox_rows"],
        row["oldest_outbox_s"] or 0.0,
        row["overdue"],
        row["most_overdue_s"] or 0.0,
        [f"{one['scope']} {one['scope_id']}".strip() for one in spent],
    )
