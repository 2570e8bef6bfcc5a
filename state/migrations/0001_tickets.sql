-- Shared ticket state, what each consumer group has handled, and what waits to be published.

CREATE TABLE tickets (
    ticket_id  text PRIMARY KEY,
    tenant_id  text NOT NULL,
    version    bigint NOT NULL CHECK (version > 0),
    status     text NOT NULL,
    round      integer NOT NULL,
    state      jsonb NOT NULL, -- the whole ticket but its version
    opened_at  timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE inbox (
    group_name   text NOT NULL,
    event_id     text NOT NULL,
    type         text NOT NULL,
    ticket_id    text NOT NULL,
    topic        text NOT NULL,
    partition    integer NOT NULL,
    kafka_offset bigint NOT NULL,
    version      bigint NOT NULL, -- the ticket's, after this event
    traceparent  text,
    handled_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, event_id)
);

CREATE INDEX inbox_of_ticket ON inbox (ticket_id);

CREATE TABLE outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id      text NOT NULL,
    type          text NOT NULL,
    ticket_id     text NOT NULL,
    topic         text NOT NULL,
    value         bytea NOT NULL,
    headers       jsonb NOT NULL, -- [[name, base64 of the value], ...]
    group_name    text NOT NULL,  -- the group that emitted it
    caused_by     text NOT NULL,  -- the event it was emitted for
    created_at    timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz,
    published_at  timestamptz,
    partition     integer,
    kafka_offset  bigint
);

CREATE INDEX outbox_of_ticket ON outbox (ticket_id, id);
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
