-- Cards of methods, and settings of the images of runs.

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
