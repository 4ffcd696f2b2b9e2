-- API keys. `hash` is the BLAKE3 hash of the secret; the secret itself is stored nowhere. `scopes` and `limits` are JSON.
CREATE TABLE api_keys (
    id      uuid PRIMARY KEY,
    name    text COLLATE "C" NOT NULL,
    hash    text COLLATE "C" NOT NULL,
    scopes  text COLLATE "C" NOT NULL,
    limits  text COLLATE "C" NOT NULL,
    created timestamptz NOT NULL,
    expires timestamptz,
    revoked timestamptz
);

-- The name of a revoked key is free again.
CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked IS NULL;

-- Who wrote or deleted what. `key_name` is repeated, since keys can be removed.
CREATE TABLE audit (
    id         uuid PRIMARY KEY,
    time       timestamptz NOT NULL,
    key_id     uuid,
    key_name   text COLLATE "C",
    method     text COLLATE "C" NOT NULL,
    route      text COLLATE "C" NOT NULL,
    resource   text COLLATE "C" NOT NULL,
    address    text COLLATE "C",
    request_id text COLLATE "C" NOT NULL,
    status     bigint NOT NULL
);

CREATE INDEX audit_by_time ON audit (time);

-- The key that sent a file: its stored bytes are limited.
ALTER TABLE kept_files ADD COLUMN key_id uuid;
CREATE INDEX kept_files_by_key ON kept_files (key_id, bytes) WHERE key_id IS NOT NULL;
