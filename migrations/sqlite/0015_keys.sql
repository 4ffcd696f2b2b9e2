-- API keys. `hash` is the BLAKE3 hash of the secret; the secret itself is stored nowhere. `scopes` and `limits` are JSON.
CREATE TABLE api_keys (
    id      TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    scopes  TEXT NOT NULL,
    limits  TEXT NOT NULL,
    created TEXT NOT NULL,
    expires TEXT,
    revoked TEXT
) STRICT;

-- The name of a revoked key is free again.
CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked IS NULL;

-- Who wrote or deleted what. `key_name` is repeated, since keys can be removed.
CREATE TABLE audit (
    id         TEXT NOT NULL PRIMARY KEY,
    time       TEXT NOT NULL,
    key_id     TEXT,
    key_name   TEXT,
    method     TEXT NOT NULL,
    route      TEXT NOT NULL,
    resource   TEXT NOT NULL,
    address    TEXT,
    request_id TEXT NOT NULL,
    status     INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (time);

-- The key that sent a file: its stored bytes are limited.
ALTER TABLE kept_files ADD COLUMN key_id TEXT;
CREATE INDEX kept_files_by_key ON kept_files (key_id, bytes) WHERE key_id IS NOT NULL;
