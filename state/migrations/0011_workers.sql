-- The workers there are, as they tell of themselves every few seconds. Lost in a crash, it is told again.
CREATE UNLOGGED TABLE workers (
    worker        text COLLATE "C" NOT NULL,
    group_name    text COLLATE "C" NOT NULL,
    version       text NOT NULL,
    host          text NOT NULL,
    process_id    integer NOT NULL,
    mode          text NOT NULL CHECK (mode IN ('running', 'paused', 'draining', 'drained')),
    lanes         integer NOT NULL,
    running       integer NOT NULL,
    in_hand       bigint NOT NULL,
    settled_per_s double precision NOT NULL,
    held_up       text NOT NULL, -- why it starts nothing; '' when it does
    partitions    integer[] NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_name, worker)
) WITH (fillfactor = 50); -- the same rows are written again and again
