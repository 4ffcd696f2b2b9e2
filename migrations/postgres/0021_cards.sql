-- Cards of methods, and settings of the images of runs.

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
