-- What people do about records that were read: jobs that redrive or discard dead letters, and rewinds of groups.

CREATE TABLE letter_jobs (
    job_id     text COLLATE "C" PRIMARY KEY,
    act        text NOT NULL CHECK (act IN ('redrive', 'discard')),
    group_name text NOT NULL,
    asked_by   text NOT NULL,
    reason     text NOT NULL,
    rate       double precision NOT NULL, -- letters a second
    status     text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz
);
CREATE INDEX letter_jobs_latest ON letter_jobs (created_at);

CREATE TABLE letter_job_letters (
    job_id         text COLLATE "C" NOT NULL REFERENCES letter_jobs,
    place          integer NOT NULL, -- its turn in the job
    letter_id      text COLLATE "C" NOT NULL,
    nth            integer NOT NULL,
    topic          text NOT NULL,
    partition      integer NOT NULL,
    kafka_offset   bigint NOT NULL,
    timestamp_ms   bigint NOT NULL,
    ticket_id      text NOT NULL,
    error          text NOT NULL,
    fingerprint    text NOT NULL,
    parked_id      bigint, -- NULL: no ticket waits for it
    copy_topic     text, -- where its bytes lie, if they do
    copy_partition integer,
    copy_offset    bigint,
    put_back       integer NOT NULL,
    fate           text NOT NULL DEFAULT 'planned',
    acted_at       timestamptz,
    PRIMARY KEY (job_id, place),
    UNIQUE (job_id, letter_id)
);
CREATE INDEX letter_job_letters_left ON letter_job_letters (job_id, place) WHERE fate IN ('planned', 'taken');

-- Who acted on a letter for the nth time: the key lets one job have it.
CREATE TABLE letter_acts (
    letter_id  text COLLATE "C" NOT NULL,
    nth        integer NOT NULL,
    job_id     text COLLATE "C" NOT NULL REFERENCES letter_jobs,
    group_name text NOT NULL,
    act        text NOT NULL,
    acted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (letter_id, nth)
);
CREATE INDEX letter_acts_of_group ON letter_acts (group_name);

CREATE TABLE rewinds (
    rewind_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name text NOT NULL,
    topic      text NOT NULL,
    asked_by   text NOT NULL,
    reason     text NOT NULL,
    moves      json NOT NULL, -- {"partition": [from, to], ...}
    begun_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved_at   timestamptz -- NULL: it was begun, and perhaps refused
);
