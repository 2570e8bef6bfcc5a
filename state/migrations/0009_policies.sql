-- Policies in versions: what was loaded stays for replays, and one pointer says which is in force.

CREATE TABLE policy_versions (
    shop_id   text NOT NULL REFERENCES shops,
    version   text NOT NULL, -- digest of its passages' ids, in order
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shop_id, version)
);

CREATE TABLE policy_passages (
    shop_id  text NOT NULL,
    version  text NOT NULL,
    position integer NOT NULL, -- its place in the policy
    document jsonb NOT NULL,
    PRIMARY KEY (shop_id, version, position),
    FOREIGN KEY (shop_id, version) REFERENCES policy_versions
);

-- A passage's id tells its text, so a vector serves every version that the passage is in.
CREATE TABLE policy_vectors (
    shop_id    text NOT NULL REFERENCES shops,
    embedder   text NOT NULL, -- which model, down to its weights
    passage_id text NOT NULL,
    vector     bytea NOT NULL, -- float32, little-endian
    PRIMARY KEY (shop_id, embedder, passage_id)
);

ALTER TABLE shops
    ADD COLUMN policy_version text,
    ADD FOREIGN KEY (shop_id, policy_version) REFERENCES policy_versions (shop_id, version);

-- The policies loaded so far are first versions, under the digest that loading them again gives.
INSERT INTO policy_versions (shop_id, version)
SELECT shop_id, encode(sha256(convert_to(string_agg(document->>'id', E'\n' ORDER BY position), 'UTF8')), 'hex')
FROM shop_passages
GROUP BY shop_id;

INSERT INTO policy_passages (shop_id, version, position, document)
SELECT shop_id, version, position, document FROM shop_passages JOIN policy_versions USING (shop_id);

UPDATE shops SET policy_version = policy_versions.version
FROM policy_versions
WHERE policy_versions.shop_id = shops.shop_id;

DROP TABLE shop_passages;

CREATE VIEW shop_passages AS -- the policy in force, under the name that workers of the version before read it by
SELECT shop_id, position, document
FROM shops JOIN policy_passages USING (shop_id)
WHERE policy_passages.version = shops.policy_version;
