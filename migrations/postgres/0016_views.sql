-- What dashboards may read: views without personal data. They have neither prompts, images, hashes, metadata, sample names,
-- annotators nor faces. docker/grafana/role.sql creates the role that may read these views and nothing else.
--
-- A column that a view reads can only change its type after the view is dropped: a later migration drops the views first,
-- and creates them again.

CREATE VIEW report_packs AS SELECT name AS pack, digest, weights, created FROM packs;

CREATE VIEW report_runs AS
SELECT runs.id, methods.name AS method, runs.name AS run, runs.dataset, runs.split, runs.pack AS digest, packs.name AS pack,
    packs.weights, runs.service_version, runs.state, runs.created, runs.finished, runs.waiting AS pending, runs.failed,
    runs.scored
FROM runs
JOIN methods ON methods.id = runs.method
LEFT JOIN packs ON packs.digest = runs.pack;

-- Samples that could not be scored, by reason.
CREATE VIEW report_failures AS
SELECT methods.name AS method, runs.name AS run, pending_samples.reason, COUNT(*) AS samples
FROM pending_samples
JOIN runs ON runs.id = pending_samples.run
JOIN methods ON methods.id = runs.method
WHERE pending_samples.state = 'failed'
GROUP BY methods.name, runs.name, pending_samples.reason;

-- One row a score, for curves over time and for reasons of null scores.
CREATE VIEW report_scores AS
SELECT scores.created, methods.name AS method, runs.name AS run, scores.pack AS digest, packs.name AS pack, packs.weights,
    scores.metric, scores.metric_version, scores.value, scores.reason, scores.flags
FROM scores
JOIN samples ON samples.id = scores.sample
JOIN runs ON runs.id = samples.run
JOIN methods ON methods.id = runs.method
JOIN packs ON packs.digest = scores.pack;

-- The table of each run: means over all its samples with their intervals.
CREATE VIEW report_summaries AS
SELECT methods.name AS method, runs.name AS run, runs.created, run_slices.computed, slice_summaries.pack AS digest,
    packs.name AS pack, packs.weights, slice_summaries.metric, slice_summaries.metric_version, slice_summaries.policy,
    slice_summaries.samples, slice_summaries.n, slice_summaries.nulls, slice_summaries.mean, slice_summaries.std,
    slice_summaries.low, slice_summaries.high
FROM slice_summaries
JOIN run_slices ON run_slices.run = slice_summaries.run AND run_slices.pack = slice_summaries.pack
JOIN runs ON runs.id = slice_summaries.run
JOIN methods ON methods.id = runs.method
JOIN packs ON packs.digest = slice_summaries.pack
WHERE slice_summaries.kind = '';

-- Curves read the scores of a time range. Scores are written in the order of time, so that this index is a few pages.
CREATE INDEX scores_by_time ON scores USING brin (created);

-- The role of the dashboards may exist already; otherwise docker/grafana/role.sql grants the same later.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stellar_grafana') THEN
        IF NOT has_schema_privilege('stellar_grafana', current_schema(), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO stellar_grafana', current_schema());
        END IF;
        GRANT SELECT ON report_packs, report_runs, report_failures, report_scores, report_summaries TO stellar_grafana;
    END IF;
END
$$;
