-- Summaries of whole runs with their intervals, by slice and penalty policy: what leaderboards read. All of it is computed
-- from samples and scores, and computed anew when those change (see src/store/slices.rs).

-- What the summaries of a run were computed from: `fingerprint` is of its running summaries. `clusters` are the keys of its
-- clusters, 8 bytes each.
CREATE TABLE run_slices (
    run         TEXT NOT NULL REFERENCES runs (id),
    pack        TEXT NOT NULL REFERENCES packs (digest),
    fingerprint TEXT NOT NULL,
    samples     INTEGER NOT NULL,
    clusters    BLOB NOT NULL,
    computed    TEXT NOT NULL,
    PRIMARY KEY (run, pack)
) STRICT, WITHOUT ROWID;

CREATE TABLE slice_summaries (
    run            TEXT NOT NULL REFERENCES runs (id),
    pack           TEXT NOT NULL REFERENCES packs (digest),
    kind           TEXT NOT NULL,
    label          TEXT NOT NULL,
    metric         TEXT NOT NULL,
    policy         TEXT NOT NULL CHECK (policy IN ('stellar', 'toolkit', 'none')),
    metric_version INTEGER NOT NULL,
    samples        INTEGER NOT NULL,
    n              INTEGER NOT NULL,
    nulls          INTEGER NOT NULL,
    penalised      INTEGER NOT NULL,
    undecided      INTEGER NOT NULL,
    faceless       INTEGER NOT NULL,
    mean           REAL,
    std            REAL,
    low            REAL,
    high           REAL,
    PRIMARY KEY (run, pack, kind, label, metric, policy)
) STRICT, WITHOUT ROWID;

-- Sums and counts by cluster, 12 bytes each, for intervals over several runs. Apart, so that reading means stays quick.
CREATE TABLE slice_sums (
    run    TEXT NOT NULL REFERENCES runs (id),
    pack   TEXT NOT NULL REFERENCES packs (digest),
    kind   TEXT NOT NULL,
    label  TEXT NOT NULL,
    metric TEXT NOT NULL,
    policy TEXT NOT NULL,
    sums   BLOB NOT NULL,
    PRIMARY KEY (run, pack, kind, label, metric, policy)
) STRICT;

-- Evenly spaced quantiles of a metric in a run, 8 bytes each.
CREATE TABLE run_quantiles (
    pack           TEXT NOT NULL REFERENCES packs (digest),
    metric         TEXT NOT NULL,
    metric_version INTEGER NOT NULL,
    run            TEXT NOT NULL REFERENCES runs (id),
    n              INTEGER NOT NULL,
    places         BLOB NOT NULL,
    PRIMARY KEY (pack, metric, metric_version, run)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_quantiles_by_run ON run_quantiles (run);
