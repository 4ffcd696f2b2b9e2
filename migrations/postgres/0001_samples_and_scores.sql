-- Samples, their scores, and the summaries behind the leaderboard.
--
-- Names compare by their bytes (COLLATE "C"), as SQLite does, so that pages are in the same order on both and a
-- change of the system's locale never breaks an index. JSON is kept as text: jsonb would reorder keys, rewrite
-- numbers and refuse U+0000; queries can still cast it.

CREATE TABLE methods (
    id      uuid PRIMARY KEY,
    name    text COLLATE "C" NOT NULL UNIQUE,
    created timestamptz NOT NULL
);

CREATE TABLE runs (
    id      uuid PRIMARY KEY,
    method  uuid NOT NULL REFERENCES methods (id),
    name    text COLLATE "C" NOT NULL,
    created timestamptz NOT NULL,
    UNIQUE (method, name)
);

CREATE TABLE packs (
    digest  text COLLATE "C" PRIMARY KEY,
    name    text COLLATE "C" NOT NULL,
    weights text COLLATE "C" NOT NULL CHECK (weights IN ('official', 'demo')),
    created timestamptz NOT NULL
);

CREATE TABLE samples (
    id               uuid PRIMARY KEY,
    run              uuid REFERENCES runs (id),
    name             text COLLATE "C" NOT NULL,
    content          text COLLATE "C" NOT NULL,
    prompt           text,
    image            text COLLATE "C" NOT NULL,
    width            bigint NOT NULL CHECK (width > 0),
    height           bigint NOT NULL CHECK (height > 0),
    reference_hashes text NOT NULL,
    auxiliary_hashes text NOT NULL,
    metadata         text NOT NULL,
    created          timestamptz NOT NULL,
    UNIQUE (run, name)
);

CREATE TABLE scores (
    sample          uuid NOT NULL REFERENCES samples (id),
    metric          text COLLATE "C" NOT NULL,
    pack            text COLLATE "C" NOT NULL REFERENCES packs (digest),
    metric_version  bigint NOT NULL,
    value           double precision,
    reason          text COLLATE "C",
    flags           text NOT NULL,
    service_version text NOT NULL,
    created         timestamptz NOT NULL,
    PRIMARY KEY (sample, metric, pack),
    CHECK ((value IS NULL) <> (reason IS NULL))
);

-- Sums are of (value - pivot): see src/store/summary.rs. Rows are rewritten with every sample: room in each page
-- lets PostgreSQL do that without touching the index.
CREATE TABLE summaries (
    run            uuid NOT NULL REFERENCES runs (id),
    pack           text COLLATE "C" NOT NULL REFERENCES packs (digest),
    metric         text COLLATE "C" NOT NULL,
    metric_version bigint NOT NULL,
    n              bigint NOT NULL CHECK (n >= 0),
    nulls          bigint NOT NULL CHECK (nulls >= 0),
    pivot          double precision NOT NULL,
    total          double precision NOT NULL,
    squares        double precision NOT NULL,
    PRIMARY KEY (run, pack, metric, metric_version)
) WITH (fillfactor = 50);
