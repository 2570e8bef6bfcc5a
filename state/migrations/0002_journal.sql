-- Paid results, kept under the event, the step and the exact request they answer.

CREATE TABLE journal (
    event_id       text NOT NULL,
    step           text NOT NULL,
    request_digest text NOT NULL,
    ticket_id      text NOT NULL,
    tenant_id      text NOT NULL,
    agent          text NOT NULL,
    result         bytea NOT NULL,
    kept_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, step, request_digest)
);
