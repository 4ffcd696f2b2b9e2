-- Votes that were cast in a browser: which image was shown first, and the votes that do not count as a preference.

-- The run whose image was shown first (on the left); null if it is not known.
ALTER TABLE preferences ADD COLUMN shown_first uuid;

-- Votes that no analysis of preferences counts. `is_repeat` is 1 for a second vote on a pair, which only measures how
-- consistent an annotator is. `value` is as in `preferences`, or null for "cannot tell". The table is new, because an
-- older instance would count its rows as preferences.
CREATE TABLE uncounted_votes (
    id          uuid NOT NULL PRIMARY KEY,
    question    text COLLATE "C" NOT NULL,
    annotator   text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    run_a       uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    run_b       uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    is_repeat   bigint NOT NULL,
    value       double precision,
    shown_first uuid,
    created     timestamptz NOT NULL,
    UNIQUE (question, annotator, name, run_a, run_b, is_repeat),
    CHECK (is_repeat = 1 OR value IS NULL)
);

CREATE INDEX uncounted_votes_by_run_a ON uncounted_votes (run_a, name);
CREATE INDEX uncounted_votes_by_run_b ON uncounted_votes (run_b, name);
