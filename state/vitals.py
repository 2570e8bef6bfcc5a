"""How the database is: what a look at it from outside tells of the system that works on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

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
SELECT concat_ws(' ', scope, nullif(scope_id, '')) AS budget, max(level) AS level
FROM budget_alerts
WHERE level >= 80 AND told_at > clock_timestamp() - interval '1 day'
GROUP BY scope, scope_id
ORDER BY level DESC, max(told_at) DESC
LIMIT 20
"""
# Orders to whole groups: the last one on whether they take records.
_ORDERS = """
SELECT DISTINCT ON (group_name) group_name AS "group", kind, ordered_by AS "by", reason,
       extract(epoch FROM clock_timestamp() - ordered_at)::float8 AS age_s
FROM control_orders
WHERE worker IS NULL AND kind <> 'SetConcurrency'
ORDER BY group_name, nth DESC
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A group that takes no records because somebody ordered so."""

    group: str
    kind: str  # Pause or Drain
    by: str
    reason: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Vitals:
    """The database at one moment. Where migrations are missing, nothing below them is told."""

    now: datetime
    asked_at: datetime  # the same moment by our own clock
    may_create: bool  # tables: migrations need it
    missing: Sequence[str]  # migrations, by name
    is_ahead: bool  # of this code
    outbox_rows: int = 0
    oldest_outbox_s: float = 0.0
    overdue: int = 0  # parked tickets whose time was over long ago
    most_overdue_s: float = 0.0
    spent: Mapping[str, int] = field(default_factory=dict)  # percent of budgets, from 80 on, within a day
    held: Sequence[Held] = ()


async def read_vitals(dsn: str, *, overdue_after_s: float) -> Vitals:
    """Look, and change nothing. Raises StoreUnavailable: nobody answers. Misconfigured: it does not let us in."""
    async with open_connection(dsn) as connection:
        with as_our_errors():
            [(now, may_create, has_books)] = await connection.fetch(_NOW)
            asked_at = datetime.now(UTC)
            applied = {row[0] for row in await connection.fetch(_APPLIED)} if has_books else set()
            migrations = read_migrations(DIRECTORY)
            missing = [migration.name for migration in migrations if migration.number not in applied]
            is_ahead = max(applied, default=0) > max(migration.number for migration in migrations)
            if missing:
                return Vitals(now, asked_at, may_create, missing, is_ahead)
            [row] = await connection.fetch(_VITALS, overdue_after_s)
            spent = await connection.fetch(_SPENT)
            orders = await connection.fetch(_ORDERS)
    return Vitals(
        now,
        asked_at,
        may_create,
        missing,
        is_ahead,
        row["outbox_rows"],
        row["oldest_outbox_s"] or 0.0,
        row["overdue"],
        row["most_overdue_s"] or 0.0,
        {one["budget"]: one["level"] for one in spent},
        [Held(**one) for one in orders if one["kind"] != "Resume"],
    )
