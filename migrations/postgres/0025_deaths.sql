-- Attempts of workers that never ended: `begun` is 1 from the beginning of an attempt to its end, and `deaths` counts the
-- attempts that began while it was 1, because the worker of the one before had died.
ALTER TABLE pending_samples ADD COLUMN begun bigint NOT NULL DEFAULT 0;
ALTER TABLE pending_samples ADD COLUMN deaths bigint NOT NULL DEFAULT 0;
