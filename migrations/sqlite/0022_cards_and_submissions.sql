-- Cards of methods, settings of the images of runs, and submissions.

-- What the authors of a method declare (JSON).
CREATE TABLE method_cards (
    method  TEXT NOT NULL PRIMARY KEY REFERENCES methods (id) ON DELETE CASCADE,
    card    TEXT NOT NULL,
    changed TEXT NOT NULL
) STRICT;

-- Settings of the images of a run (JSON), counted when it was finished.
CREATE TABLE run_settings (
    run      TEXT NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    settings TEXT NOT NULL
) STRICT;

-- Bundles that were submitted. `facts` is the JSON of the bundle. `board_run` is the run that shows its scores.
CREATE TABLE submissions (
    id        TEXT NOT NULL PRIMARY KEY,
    digest    TEXT NOT NULL UNIQUE,
    method    TEXT NOT NULL,
    run       TEXT NOT NULL,
    state     TEXT NOT NULL CHECK (state IN ('received', 'verified', 'refused', 'withdrawn')),
    facts     TEXT NOT NULL,
    bundle    BLOB NOT NULL,
    board_run TEXT REFERENCES runs (id) ON DELETE SET NULL,
    created   TEXT NOT NULL
) STRICT;

CREATE INDEX submissions_by_board_run ON submissions (board_run);

-- The log of the board: each change of a submission's state. It outlives runs.
CREATE TABLE submission_changes (
    id         TEXT NOT NULL PRIMARY KEY,
    submission TEXT NOT NULL REFERENCES submissions (id) ON DELETE CASCADE,
    state      TEXT NOT NULL CHECK (state IN ('received', 'verified', 'refused', 'withdrawn')),
    reason     TEXT,
    key_name   TEXT,
    created    TEXT NOT NULL
) STRICT;

CREATE INDEX submission_changes_by_submission ON submission_changes (submission);
