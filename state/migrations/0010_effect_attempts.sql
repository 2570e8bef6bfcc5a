-- Effects that somebody outside carries out: what is known of each try, written down before it is made.

CREATE TABLE effect_attempts (
    effect_key text PRIMARY KEY,
    outlet     text NOT NULL,        -- where it goes: smtp, webhook
    state      text NOT NULL CHECK (state IN ('begun', 'in_doubt', 'done', 'refused')),
    tries      integer NOT NULL DEFAULT 1,
    begun_at   timestamptz NOT NULL, -- the last try
    ended_at   timestamptz,          -- null while it is under way, or its worker has died
    note       text NOT NULL DEFAULT ''
);

-- What a person has to look at, or a worker has to ask for, is a few rows among many.
CREATE INDEX effect_attempts_open ON effect_attempts (begun_at) WHERE state IN ('begun', 'in_doubt');
