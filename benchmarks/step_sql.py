"""The whole step as the hand-written arms do it: an inbox, versioned tickets, an outbox, and nothing more."""

TABLES = """
CREATE TABLE step_inbox (
    group_name text NOT NULL,
    event_id   text NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, event_id)
);
CREATE TABLE step_tickets (
    ticket_id  text PRIMARY KEY,
    version    bigint NOT NULL,
    state      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE step_outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     text NOT NULL,
    ticket_id    text NOT NULL,
    topic        text NOT NULL,
    value        bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX step_outbox_unpublished ON step_outbox (id) WHERE published_at IS NULL;
"""

INBOX = "INSERT INTO step_inbox (group_name, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1"
LOAD = "SELECT version, state FROM step_tickets WHERE ticket_id = $1"
SAVE = """
INSERT INTO step_tickets AS stored (ticket_id, version, state) VALUES ($1, $2 + 1, $3)
ON CONFLICT (ticket_id) DO UPDATE SET version = excluded.version, state = excluded.state, updated_at = now()
WHERE stored.version = $2
RETURNING version
"""
OUTBOX = "INSERT INTO step_outbox (event_id, ticket_id, topic, value) VALUES ($1, $2, $3, $4) RETURNING id"
MARK = "UPDATE step_outbox SET published_at = now() WHERE id = ANY($1::bigint[])"

ONE_STATEMENT = """
WITH fresh AS (
    INSERT INTO step_inbox (group_name, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1
), saved AS (
    INSERT INTO step_tickets AS stored (ticket_id, version, state)
    SELECT $3, $4::bigint + 1, $5::jsonb FROM fresh
    ON CONFLICT (ticket_id) DO UPDATE SET version = excluded.version, state = excluded.state, updated_at = now()
    WHERE stored.version = $4
    RETURNING version
)
INSERT INTO step_outbox (event_id, ticket_id, topic, value) SELECT $2, $3, $6, $7 FROM saved RETURNING id
"""

MANY_STEPS = """
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::jsonb[], $7::bytea[])
        AS one (event_id, ticket_id, version, state, value)
), fresh AS (
    INSERT INTO step_inbox (group_name, event_id) SELECT $1, event_id FROM given
    ON CONFLICT DO NOTHING RETURNING event_id
), saved AS (
    INSERT INTO step_tickets AS stored (ticket_id, version, state)
    SELECT ticket_id, version + 1, state FROM given JOIN fresh USING (event_id)
    ON CONFLICT (ticket_id) DO UPDATE SET version = excluded.version, state = excluded.state, updated_at = now()
    WHERE stored.version + 1 = excluded.version
    RETURNING ticket_id
)
INSERT INTO step_outbox (event_id, ticket_id, topic, value)
SELECT event_id, ticket_id, $6, value FROM given JOIN saved USING (ticket_id) RETURNING id
"""
