-- The engine: outbox rows have an owner, workers hold leases, and what was published lies apart from what was not.

CREATE TABLE leases (
    name       text PRIMARY KEY,
    owner      text NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50); -- renewed all the time

-- What is published is history and leaves the outbox: that keeps the outbox, its indexes and every look at it small.
ALTER TABLE outbox RENAME TO emitted;
ALTER TABLE emitted ALTER COLUMN id DROP IDENTITY;
ALTER TABLE emitted DROP CONSTRAINT outbox_pkey;
ALTER INDEX outbox_of_ticket RENAME TO emitted_of_ticket;
DROP INDEX outbox_unpublished;

CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id  text NOT NULL,
    topic      text NOT NULL,
    event_id   text NOT NULL,
    type       text NOT NULL,
    value      bytea NOT NULL,
    headers    bytea NOT NULL, -- as state.outbox writes them
    group_name text NOT NULL,  -- the group that emitted it
    caused_by  text NOT NULL,  -- the event it was emitted for
    owner      text,           -- the worker that is to publish it; null: whoever takes it over
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_of_ticket ON outbox (ticket_id, topic);
SELECT setval(pg_get_serial_sequence('outbox', 'id'), COALESCE((SELECT max(id) FROM emitted), 0) + 1, false);

INSERT INTO outbox (id, ticket_id, topic, event_id, type, value, headers, group_name, caused_by, created_at)
OVERRIDING SYSTEM VALUE
SELECT id, ticket_id, topic, event_id, type, value, COALESCE(in_bytes, int4send(0)), group_name, caused_by, created_at
FROM emitted
CROSS JOIN LATERAL (
    SELECT int4send(2 * count(*)::integer)
           || string_agg(int4send(octet_length(name)) || int4send(octet_length(text)), ''::bytea ORDER BY place)
           || string_agg(name || text, ''::bytea ORDER BY place) AS in_bytes
    FROM (
        SELECT convert_to(header ->> 0, 'UTF8') AS name, decode(header ->> 1, 'base64') AS text, place
        FROM jsonb_array_elements(headers) WITH ORDINALITY AS listed (header, place)
    ) AS decoded
) AS encoded
WHERE published_at IS NULL
ORDER BY id;

DELETE FROM emitted WHERE published_at IS NULL;
ALTER TABLE emitted
    DROP COLUMN headers,
    DROP COLUMN claimed_until,
    ALTER COLUMN published_at SET NOT NULL,
    ALTER COLUMN published_at SET DEFAULT now();

-- When the first of a ticket's open rounds must have its outcome.
ALTER TABLE tickets ADD COLUMN deadline timestamptz;
UPDATE tickets
SET deadline = (
    SELECT min((round ->> 'deadline')::timestamptz)
    FROM jsonb_array_elements(state -> 'rounds') AS listed (round)
    WHERE round ->> 'desk' <> 'closed'
)
WHERE state @? '$.rounds[*] ? (@.desk != "closed" && @.deadline != null)';
CREATE INDEX tickets_overdue ON tickets (deadline) WHERE deadline IS NOT NULL;
ALTER TABLE tickets SET (fillfactor = 70); -- a new version finds room on its page, and touches no index

-- How far the sweep for old rows has come.
CREATE TABLE housekeeping (
    table_name text PRIMARY KEY,
    page       bigint NOT NULL DEFAULT 0
);
INSERT INTO housekeeping (table_name) VALUES ('inbox'), ('emitted'), ('journal');

-- Room is given back early: these tables turn over all the time.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE emitted SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE journal SET (autovacuum_vacuum_scale_factor = 0.02);
