-- What each worker says of itself, a row a worker, written anew every few seconds. Lost in a crash, it is said again.
CREATE UNLOGGED TABLE worker_reports (
    worker        text COLLATE "C" PRIMARY KEY,
    group_name    text COLLATE "C" NOT NULL,
    host          text NOT NULL,
    process_id    integer NOT NULL,
    lanes         integer NOT NULL,
    running       integer NOT NULL,
    in_hand       bigint NOT NULL,
    settled_per_s double precision NOT NULL,
    held_up       text NOT NULL, -- why it starts nothing; '' when it does
    partitions    integer[] NOT NULL,
    reported_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

CREATE INDEX worker_reports_of_group ON worker_reports (group_name);
