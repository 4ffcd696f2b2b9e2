-- How many clusters (identities) a slice's numbers are of: an interval of few rests on little, which answers say.

-- Intervals are computed in another way than before. All of these rows are computed from samples and scores, and anew where
-- they are missing.
DELETE FROM slice_sums;
DELETE FROM slice_summaries;
DELETE FROM run_quantiles;
DELETE FROM run_slices;

ALTER TABLE slice_summaries ADD COLUMN clusters INTEGER NOT NULL DEFAULT 0;
