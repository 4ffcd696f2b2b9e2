-- Which samples a run has, so that means over different ones are not ranked against each other. What was summarised before is
-- summarised anew.
ALTER TABLE run_slices ADD COLUMN sample_set text COLLATE "C" NOT NULL DEFAULT '';
UPDATE run_slices SET fingerprint = '';
