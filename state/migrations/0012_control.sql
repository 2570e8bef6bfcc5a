-- What ops order the workers to do: every order is kept, and the last one on each matter counts.

CREATE TABLE control_orders (
    nth        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command_id text NOT NULL UNIQUE,
    group_name text NOT NULL,
    worker     text,             -- NULL: every worker of the group
    kind       text NOT NULL CHECK (kind IN ('Pause', 'Resume', 'Drain', 'SetConcurrency')),
    lanes      integer CHECK ((lanes IS NULL) = (kind <> 'SetConcurrency')),
    ordered_by text NOT NULL,
    reason     text NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX control_orders_of_group ON control_orders (group_name, nth);

-- How many workers each agent is to have: every decision is kept with what it was made from, the last one counts.
CREATE TABLE scale_decisions (
    nth        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent      text NOT NULL,
    workers    integer NOT NULL CHECK (workers >= 0),
    decided_by text NOT NULL,
    reason     text NOT NULL,
    inputs     jsonb NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX scale_decisions_of_agent ON scale_decisions (agent, nth);
