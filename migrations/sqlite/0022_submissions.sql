-- Submissions: bundles of scores that wait for a verification, and the changes of the board.

-- `method` and `run` are the names in the bundle, `pack`, `pack_name` and `weights` its pack. `run_id` is the run that
-- the verification made. `verification` and `facts` are JSON. `facts` and `bundle` come last: a row is read up to its
-- last wanted column.
CREATE TABLE submissions (
    id           TEXT NOT NULL PRIMARY KEY,
    digest       TEXT NOT NULL UNIQUE,
    method       TEXT NOT NULL,
    run          TEXT NOT NULL,
    dataset      TEXT,
    split        TEXT,
    pack         TEXT NOT NULL,
    pack_name    TEXT NOT NULL,
    weights      TEXT NOT NULL,
    samples      INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('received', 'verified', 'withdrawn')),
    run_id       TEXT REFERENCES runs (id) ON DELETE SET NULL,
    created      TEXT NOT NULL,
    changed      TEXT NOT NULL,
    verification TEXT,
    facts        TEXT NOT NULL,
    bundle       BLOB NOT NULL
) STRICT;

CREATE INDEX submissions_by_run ON submissions (run_id);
CREATE INDEX submissions_by_state ON submissions (state);

-- The change log, to which rows are only added. `submission` is null after the submission was deleted, with an empty
-- note and no key.
CREATE TABLE board_changes (
    id         TEXT NOT NULL PRIMARY KEY,
    created    TEXT NOT NULL,
    action     TEXT NOT NULL CHECK (action IN ('received', 'verified', 'withdrawn')),
    submission TEXT REFERENCES submissions (id) ON DELETE SET NULL,
    method     TEXT NOT NULL,
    run        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    note       TEXT NOT NULL,
    key_id     TEXT
) STRICT;

CREATE INDEX board_changes_by_submission ON board_changes (submission);
