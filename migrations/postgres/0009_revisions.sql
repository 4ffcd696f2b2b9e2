-- Grows with every change of what a run's samples and scores say, so that what was computed from them is known to be of now.

ALTER TABLE runs ADD COLUMN revision bigint NOT NULL DEFAULT 0;
