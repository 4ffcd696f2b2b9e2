-- Cards of methods, settings of the images of runs, and submissions.

-- What the authors of a method declare (JSON).
CREATE TABLE method_cards (
    method  uuid NOT NULL PRIMARY KEY REFERENCES methods (id) ON DELETE CASCADE,
    card    text NOT NULL,
    changed timestamptz NOT NULL
);

-- Settings of the images of a run (JSON), counted when it was finished.
CREATE TABLE run_settings (
    run      uuid NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    settings text NOT NULL
);

-- Bundles that were submitted. `facts` is the JSON of the bundle. `board_run` is the run that shows its scores.
CREATE TABLE submissions (
    id        uuid NOT NULL PRIMARY KEY,
    digest    text COLLATE "C" NOT NULL UNIQUE,
    method    text COLLATE "C" NOT NULL,
    run       text COLLATE "C" NOT NULL,
    state     text NOT NULL CHECK (state IN ('received', 'verified', 'refused', 'withdrawn')),
    facts     text NOT NULL,
    bundle    bytea NOT NULL,
    board_run uuid REFERENCES runs (id) ON DELETE SET NULL,
    created   timestamptz NOT NULL
);

CREATE INDEX submissions_by_board_run ON submissions (board_run);

-- The log of the board: each change of a submission's state. It outlives runs.
CREATE TABLE submission_changes (
    id         uuid NOT NULL PRIMARY KEY,
    submission uuid NOT NULL REFERENCES submissions (id) ON DELETE CASCADE,
    state      text NOT NULL CHECK (state IN ('received', 'verified', 'refused', 'withdrawn')),
    reason     text,
    key_name   text COLLATE "C",
    created    timestamptz NOT NULL
);

CREATE INDEX submission_changes_by_submission ON submission_changes (submission);
