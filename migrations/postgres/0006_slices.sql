-- Summaries of whole runs with their intervals, by slice and penalty policy: what leaderboards read. All of it is computed
-- from samples and scores, and computed anew when those change (see src/store/slices.rs).

-- What the summaries of a run were computed from: `fingerprint` is of its running summaries. `clusters` are the keys of its
-- clusters, 8 bytes each.
CREATE TABLE run_slices (
    run         uuid NOT NULL REFERENCES runs (id),
    pack        text COLLATE "C" NOT NULL REFERENCES packs (digest),
    fingerprint text COLLATE "C" NOT NULL,
    samples     bigint NOT NULL,
    clusters    bytea NOT NULL,
    computed    timestamptz NOT NULL,
    PRIMARY KEY (run, pack)
);

CREATE TABLE slice_summaries (
    run            uuid NOT NULL REFERENCES runs (id),
    pack           text COLLATE "C" NOT NULL REFERENCES packs (digest),
    kind           text COLLATE "C" NOT NULL,
    label          text COLLATE "C" NOT NULL,
    metric         text COLLATE "C" NOT NULL,
    policy         text COLLATE "C" NOT NULL CHECK (policy IN ('stellar', 'toolkit', 'none')),
    metric_version bigint NOT NULL,
    samples        bigint NOT NULL,
    n              bigint NOT NULL,
    nulls          bigint NOT NULL,
    penalised      bigint NOT NULL,
    undecided      bigint NOT NULL,
    faceless       bigint NOT NULL,
    mean           double precision,
    std            double precision,
    low            double precision,
    high           double precision,
    PRIMARY KEY (run, pack, kind, label, metric, policy)
);

-- Sums and counts by cluster, 12 bytes each, for intervals over several runs. Apart, so that reading means stays quick.
CREATE TABLE slice_sums (
    run    uuid NOT NULL REFERENCES runs (id),
    pack   text COLLATE "C" NOT NULL REFERENCES packs (digest),
    kind   text COLLATE "C" NOT NULL,
    label  text COLLATE "C" NOT NULL,
    metric text COLLATE "C" NOT NULL,
    policy text COLLATE "C" NOT NULL,
    sums   bytea NOT NULL,
    PRIMARY KEY (run, pack, kind, label, metric, policy)
);

-- Evenly spaced quantiles of a metric in a run, 8 bytes each.
CREATE TABLE run_quantiles (
    pack           text COLLATE "C" NOT NULL REFERENCES packs (digest),
    metric         text COLLATE "C" NOT NULL,
    metric_version bigint NOT NULL,
    run            uuid NOT NULL REFERENCES runs (id),
    n              bigint NOT NULL,
    places         bytea NOT NULL,
    PRIMARY KEY (pack, metric, metric_version, run)
);

CREATE INDEX run_quantiles_by_run ON run_quantiles (run);
