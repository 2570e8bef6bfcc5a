-- Tickets that wait: for a group, the failed record of a ticket and behind it, in order, its later ones.

CREATE SEQUENCE parked_ids;

-- One row a parked ticket, with the record it waits for.
CREATE TABLE parked_tickets (
    group_name     text NOT NULL,
    ticket_id      text NOT NULL,
    parked_id      bigint NOT NULL DEFAULT nextval('parked_ids'),
    topic          text NOT NULL,
    partition      integer NOT NULL,
    kafka_offset   bigint NOT NULL,
    timestamp_ms   bigint NOT NULL, -- the record's own, as Kafka has it: -1 when it has none
    timestamp_type smallint NOT NULL,
    key            bytea,
    value          bytea,
    headers        json NOT NULL, -- [[name, base64 of the value or null], ...]; jsonb could not hold every name
    attempts       integer NOT NULL,
    error          text NOT NULL, -- why it waits; '' once it moved up behind another
    due_at         timestamptz, -- NULL: a dead letter, until somebody redrives or discards it
    failed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    parked_at      timestamptz NOT NULL DEFAULT clock_timestamp(), -- the ticket; its record may have come later
    PRIMARY KEY (group_name, ticket_id)
);

CREATE INDEX parked_tickets_due ON parked_tickets (group_name, due_at, parked_id) WHERE due_at IS NOT NULL;

-- The later records of parked tickets. The foreign key refuses to end a parking that a record has just joined.
CREATE TABLE parked_records (
    group_name     text NOT NULL,
    ticket_id      text NOT NULL,
    parked_id      bigint NOT NULL DEFAULT nextval('parked_ids'), -- their order
    topic          text NOT NULL,
    partition      integer NOT NULL,
    kafka_offset   bigint NOT NULL,
    timestamp_ms   bigint NOT NULL,
    timestamp_type smallint NOT NULL,
    key            bytea,
    value          bytea,
    headers        json NOT NULL,
    queued_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_name, ticket_id, parked_id),
    -- Ticket and timestamp tell a record from that of a topic created anew, whose offsets begin again.
    UNIQUE (group_name, ticket_id, topic, partition, kafka_offset, timestamp_ms),
    FOREIGN KEY (group_name, ticket_id) REFERENCES parked_tickets
);

-- Room is given back early: both tables turn over all the time.
ALTER TABLE parked_tickets SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
ALTER TABLE parked_records SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
