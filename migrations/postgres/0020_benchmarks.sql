-- The samples of each kind of prompt in a run are a benchmark of their own (Stellar-T and Stellar-H): they are summarised
-- like a run that has no others, with their own penalty, clusters and sample set.

-- `clusters` are the keys of the clusters of these samples, 8 bytes each.
CREATE TABLE benchmark_sets (
    run        uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    pack       text COLLATE "C" NOT NULL REFERENCES packs (digest),
    label      text COLLATE "C" NOT NULL,
    sample_set text COLLATE "C" NOT NULL,
    samples    bigint NOT NULL,
    clusters   bytea NOT NULL,
    PRIMARY KEY (run, pack, label)
);

-- Summaries by kind of prompt had the penalty of the whole run. All runs are summarised again.
DELETE FROM slice_sums WHERE kind = 'prompt_kind';
DELETE FROM slice_summaries WHERE kind = 'prompt_kind';
UPDATE run_slices SET fingerprint = '';
