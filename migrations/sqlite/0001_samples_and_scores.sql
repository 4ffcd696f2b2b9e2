-- Samples, their scores, and the summaries behind the leaderboard.
--
-- The tables of PostgreSQL with SQLite's types: ids are hyphenated text, times are ISO 8601 in UTC with six
-- digits of a second (so that text sorts as time), JSON is text.

CREATE TABLE methods (
    id      TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL
) STRICT;

CREATE TABLE runs (
    id      TEXT NOT NULL PRIMARY KEY,
    method  TEXT NOT NULL REFERENCES methods (id),
    name    TEXT NOT NULL,
    created TEXT NOT NULL,
    UNIQUE (method, name)
) STRICT;

CREATE TABLE packs (
    digest  TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    weights TEXT NOT NULL CHECK (weights IN ('official', 'demo')),
    created TEXT NOT NULL
) STRICT;

CREATE TABLE samples (
    id               TEXT NOT NULL PRIMARY KEY,
    run              TEXT REFERENCES runs (id),
    name             TEXT NOT NULL,
    content          TEXT NOT NULL,
    prompt           TEXT,
    image            TEXT NOT NULL,
    width            INTEGER NOT NULL CHECK (width > 0),
    height           INTEGER NOT NULL CHECK (height > 0),
    reference_hashes TEXT NOT NULL,
    auxiliary_hashes TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    created          TEXT NOT NULL,
    UNIQUE (run, name)
) STRICT;

CREATE TABLE scores (
    sample          TEXT NOT NULL REFERENCES samples (id),
    metric          TEXT NOT NULL,
    pack            TEXT NOT NULL REFERENCES packs (digest),
    metric_version  INTEGER NOT NULL,
    value           REAL,
    reason          TEXT,
    flags           TEXT NOT NULL,
    service_version TEXT NOT NULL,
    created         TEXT NOT NULL,
    PRIMARY KEY (sample, metric, pack),
    CHECK ((value IS NULL) <> (reason IS NULL))
) STRICT, WITHOUT ROWID;

-- Sums are of (value - pivot): see src/store/summary.rs.
CREATE TABLE summaries (
    run            TEXT NOT NULL REFERENCES runs (id),
    pack           TEXT NOT NULL REFERENCES packs (digest),
    metric         TEXT NOT NULL,
    metric_version INTEGER NOT NULL,
    n              INTEGER NOT NULL CHECK (n >= 0),
    nulls          INTEGER NOT NULL CHECK (nulls >= 0),
    pivot          REAL NOT NULL,
    total          REAL NOT NULL,
    squares        REAL NOT NULL,
    PRIMARY KEY (run, pack, metric, metric_version)
) STRICT, WITHOUT ROWID;
