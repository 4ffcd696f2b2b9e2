-- Submissions: bundles of scores that wait for a verification, and the changes of the board.

-- `method` and `run` are the names in the bundle, `pack`, `pack_name` and `weights` its pack. `run_id` is the run that
-- the verification made. `verification` and `facts` are JSON.
CREATE TABLE submissions (
    id           uuid NOT NULL PRIMARY KEY,
    digest       text COLLATE "C" NOT NULL UNIQUE,
    method       text COLLATE "C" NOT NULL,
    run          text COLLATE "C" NOT NULL,
    dataset      text COLLATE "C",
    split        text COLLATE "C",
    pack         text COLLATE "C" NOT NULL,
    pack_name    text NOT NULL,
    weights      text NOT NULL,
    samples      bigint NOT NULL,
    state        text NOT NULL CHECK (state IN ('received', 'verified', 'withdrawn')),
    run_id       uuid REFERENCES runs (id) ON DELETE SET NULL,
    created      timestamptz NOT NULL,
    changed      timestamptz NOT NULL,
    verification text,
    facts        text NOT NULL,
    bundle       bytea NOT NULL
);

CREATE INDEX submissions_by_run ON submissions (run_id);
CREATE INDEX submissions_by_state ON submissions (state);

-- The change log, to which rows are only added. `submission` is null after the submission was deleted, with an empty
-- note and no key.
CREATE TABLE board_changes (
    id         uuid NOT NULL PRIMARY KEY,
    created    timestamptz NOT NULL,
    action     text NOT NULL CHECK (action IN ('received', 'verified', 'withdrawn')),
    submission uuid REFERENCES submissions (id) ON DELETE SET NULL,
    method     text COLLATE "C" NOT NULL,
    run        text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    note       text NOT NULL,
    key_id     uuid
);

CREATE INDEX board_changes_by_submission ON board_changes (submission);
