-- What was done to the world, once per effect key.

CREATE TABLE effects (
    effect_key text PRIMARY KEY,
    kind       text NOT NULL,
    ticket_id  text NOT NULL,
    tenant_id  text NOT NULL,
    user_id    text,           -- whose order it changed; null for a reply
    order_id   text,
    command    jsonb NOT NULL, -- the whole command: for a reply, what was said to whom
    order_then jsonb,          -- the order as it was right after
    amount     numeric NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX effects_of_ticket ON effects (ticket_id);
