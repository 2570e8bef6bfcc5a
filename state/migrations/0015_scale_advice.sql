-- How many workers were found right for each agent when somebody looked last, whether that changed anything or not.
CREATE TABLE scale_advice (
    agent      text PRIMARY KEY,
    workers    integer NOT NULL CHECK (workers >= 0),
    decided_by text NOT NULL,
    reason     text NOT NULL,
    inputs     jsonb NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE scale_advice SET (fillfactor = 50); -- the same rows are written again and again
