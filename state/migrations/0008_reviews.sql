-- What people are asked to decide, and what became of it.

CREATE TABLE reviews (
    review_id    text COLLATE "C" PRIMARY KEY,
    ticket_id    text COLLATE "C" NOT NULL,
    tenant_id    text NOT NULL,
    asked_by     text NOT NULL, -- the agent
    request      json NOT NULL, -- the event that asks; jsonb could not hold every text
    requested_by text NOT NULL, -- that event's id
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version      bigint NOT NULL DEFAULT 1,
    status       text NOT NULL DEFAULT 'open', -- open | decided | closed
    queue        text NOT NULL DEFAULT '',
    due_at       timestamptz, -- NULL: the time-out policy has stepped in
    move_type    text, -- of the last move: ReviewDecided | ReviewTimedOut
    move         json, -- the event that tells of it
    moved_by     text, -- that event's id
    moved_at     timestamptz
);

CREATE INDEX reviews_open ON reviews (requested_at) WHERE status = 'open';
CREATE INDEX reviews_due ON reviews (due_at) WHERE status = 'open' AND due_at IS NOT NULL;
CREATE INDEX reviews_of_ticket ON reviews (ticket_id);
