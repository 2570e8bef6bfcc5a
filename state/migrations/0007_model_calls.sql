-- The book of model calls, what answered them, and the budgets' alerts.

-- A row for each try at a provider. Opened before the call where something is held for it, finished after it.
CREATE TABLE model_calls (
    id                 text COLLATE "C" PRIMARY KEY,
    ticket_id          text COLLATE "C" NOT NULL,
    tenant_id          text COLLATE "C" NOT NULL,
    customer           text COLLATE "C" NOT NULL, -- a digest; '' is unknown
    agent              text COLLATE "C" NOT NULL,
    agent_version      text NOT NULL,
    step               text NOT NULL,
    event_id           text NOT NULL,
    tier               text NOT NULL,
    provider           text NOT NULL,
    model              text NOT NULL,
    api_key            text NOT NULL, -- its last four characters
    day                date NOT NULL, -- UTC; the window of the budgets it was held in
    held_usd           numeric NOT NULL DEFAULT 0,
    held_tokens        bigint NOT NULL DEFAULT 0,
    lapses_at          timestamptz, -- of an opened call: whoever opened it is dead by then
    opened_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at        timestamptz,
    provider_call_id   text NOT NULL DEFAULT '',
    input_tokens       bigint NOT NULL DEFAULT 0,
    output_tokens      bigint NOT NULL DEFAULT 0,
    cache_read_tokens  bigint NOT NULL DEFAULT 0,
    cache_write_tokens bigint NOT NULL DEFAULT 0,
    cost_usd           numeric NOT NULL DEFAULT 0,
    latency_s          double precision NOT NULL DEFAULT 0,
    outcome            text NOT NULL DEFAULT '',
    estimated          boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80); -- most are opened and then finished
CREATE INDEX model_calls_of_ticket ON model_calls (ticket_id);
CREATE INDEX model_calls_of_day ON model_calls (day, tenant_id);
CREATE INDEX model_calls_of_customer ON model_calls (customer, day) WHERE customer <> '';

CREATE TYPE opened_call AS (
    id text, ticket_id text, tenant_id text, customer text, agent text, agent_version text, step text, event_id text,
    tier text, provider text, model text, api_key text, day date, held_usd numeric, held_tokens bigint,
    lease_s double precision
);
CREATE TYPE finished_call AS (
    id text, ticket_id text, tenant_id text, customer text, agent text, agent_version text, step text, event_id text,
    tier text, provider text, model text, api_key text, day date, provider_call_id text, input_tokens bigint,
    output_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, cost_usd numeric,
    latency_s double precision, outcome text, estimated boolean,
    request_digest text, result bytea, -- for the journal; null: nothing to keep
    usage_topic text, usage_id text, usage_type text, usage_value bytea, usage_headers bytea
);

-- Which levels of which budgets were told.
CREATE TABLE budget_alerts (
    scope    text NOT NULL,
    scope_id text NOT NULL,
    time_window text NOT NULL,
    unit     text NOT NULL,
    level    integer NOT NULL,
    told_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, scope_id, time_window, unit, level)
);

-- Answers by the digest of what was asked, to be given again in a replay. Masked as they left for the provider.
CREATE TABLE recordings (
    request_digest text COLLATE "C" PRIMARY KEY,
    ticket_id      text COLLATE "C" NOT NULL,
    tenant_id      text NOT NULL,
    agent          text NOT NULL,
    step           text NOT NULL,
    request        json NOT NULL,
    reply          bytea NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX recordings_of_ticket ON recordings (ticket_id, agent, step);
CREATE INDEX recordings_of_step ON recordings (agent, step, recorded_at);

INSERT INTO housekeeping (table_name) VALUES ('model_calls'), ('recordings');
