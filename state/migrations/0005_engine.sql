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

-- Ids are compared byte by byte, which is cheaper than by the rules of a language and the same on every machine.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id  text COLLATE "C" NOT NULL,
    topic      text COLLATE "C" NOT NULL,
    event_id   text NOT NULL,
    type       text NOT NULL,
    value      bytea NOT NULL,
    headers    bytea NOT NULL, -- as state.outbox writes them
    group_name text NOT NULL,  -- the group that emitted it
    caused_by  text NOT NULL,  -- the event it was emitted for
    owner      text COLLATE "C" NOT NULL DEFAULT '', -- the worker that is to publish it; '': whoever takes it over
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_of_ticket ON outbox (ticket_id, topic);
CREATE INDEX outbox_of_owner ON outbox (owner, id);
ALTER TABLE inbox
    ALTER COLUMN group_name TYPE text COLLATE "C",
    ALTER COLUMN event_id TYPE text COLLATE "C",
    ALTER COLUMN ticket_id TYPE text COLLATE "C";
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
    ALTER COLUMN ticket_id TYPE text COLLATE "C",
    ALTER COLUMN published_at SET NOT NULL,
    ALTER COLUMN published_at SET DEFAULT now();

-- What settling is given, many at a time. Another version of the code that wants other fields brings its own types.
CREATE TYPE settling_step AS (
    ticket_id    text,
    tenant_id    text,
    version      bigint,
    group_name   text,
    event_id     text,
    type         text,
    status       text,
    round        integer,
    state        text,
    deadline     double precision, -- seconds since 1970
    topic        text,
    partition    integer,
    kafka_offset bigint,
    traceparent  text
);
CREATE TYPE settling_record AS (
    step      integer, -- the place of its step, from 1
    ticket_id text,
    topic     text,
    event_id  text,
    type      text,
    value     bytea,
    headers   bytea
);

-- When the first of a ticket's open rounds times out; what is decided does not.
ALTER TABLE tickets ADD COLUMN deadline timestamptz;
UPDATE tickets
SET deadline = (
    SELECT min((round ->> 'deadline')::timestamptz)
    FROM jsonb_array_elements(state -> 'rounds') AS listed (round)
    WHERE round ->> 'desk' NOT IN ('closed', 'effects')
)
WHERE state @? '$.rounds[*] ? (@.desk != "closed" && @.desk != "effects" && @.deadline != null)';
CREATE INDEX tickets_overdue ON tickets (deadline) WHERE deadline IS NOT NULL;

ALTER TABLE tickets
    ALTER COLUMN ticket_id TYPE text COLLATE "C",
    ALTER COLUMN state TYPE text USING state::text; -- JSON still, but no statement looks inside: spare the parsing
ALTER TABLE tickets SET (fillfactor = 70); -- a new version finds room on its page, and touches no index

-- Documents are not compressed before they are this long: that takes longer than all the rest of a step.
ALTER TABLE tickets SET (toast_tuple_target = 4096);
ALTER TABLE outbox SET (toast_tuple_target = 8160);
ALTER TABLE emitted SET (toast_tuple_target = 4096);

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
