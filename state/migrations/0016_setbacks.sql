-- What went wrong with a ticket's records: each time one was put off, or became a dead letter.

CREATE TABLE setbacks (
    ticket_id    text COLLATE "C" NOT NULL,
    group_name   text NOT NULL,
    topic        text NOT NULL,
    partition    integer NOT NULL,
    kafka_offset bigint NOT NULL,
    attempts     integer NOT NULL, -- so far
    error        text NOT NULL,
    due_at       timestamptz,      -- when it was to be tried again; NULL: never, it became a dead letter
    happened_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX setbacks_of_ticket ON setbacks (ticket_id);

INSERT INTO housekeeping (table_name) VALUES ('setbacks');
