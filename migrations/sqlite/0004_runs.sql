-- Runs with their facts and state, samples that wait to be scored, and the files that are kept for them.

ALTER TABLE methods ADD COLUMN description TEXT;

-- `declared` is 1 where somebody said what the run is; others came into being with their first sample. `waiting`, `failed`
-- and `scored` count the rows of `pending_samples` and `samples`, so that progress is one row to read.
ALTER TABLE runs ADD COLUMN declared INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN dataset TEXT;
ALTER TABLE runs ADD COLUMN split TEXT;
ALTER TABLE runs ADD COLUMN flags TEXT NOT NULL DEFAULT '{}';
ALTER TABLE runs ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE runs ADD COLUMN metrics TEXT;
ALTER TABLE runs ADD COLUMN pack TEXT REFERENCES packs (digest);
ALTER TABLE runs ADD COLUMN service_version TEXT;
ALTER TABLE runs ADD COLUMN state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'finishing', 'finished'));
ALTER TABLE runs ADD COLUMN finished TEXT;
ALTER TABLE runs ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0);
ALTER TABLE runs ADD COLUMN failed INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0);
ALTER TABLE runs ADD COLUMN scored INTEGER NOT NULL DEFAULT 0 CHECK (scored >= 0);

CREATE INDEX runs_by_state ON runs (state, id);

-- A sample whose scores were computed elsewhere has no picture here. SQLite cannot take a NOT NULL away, so the table is
-- made anew; foreign keys are off meanwhile.
CREATE TABLE new_samples (
    id               TEXT NOT NULL PRIMARY KEY,
    run              TEXT REFERENCES runs (id),
    name             TEXT NOT NULL,
    content          TEXT NOT NULL,
    prompt           TEXT,
    image            TEXT,
    width            INTEGER CHECK (width > 0),
    height           INTEGER CHECK (height > 0),
    reference_hashes TEXT NOT NULL,
    auxiliary_hashes TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    created          TEXT NOT NULL,
    UNIQUE (run, name),
    CHECK ((image IS NULL) = (width IS NULL) AND (image IS NULL) = (height IS NULL))
) STRICT;
INSERT INTO new_samples
    SELECT id, run, name, content, prompt, image, width, height, reference_hashes, auxiliary_hashes, metadata, created
    FROM samples;
DROP TABLE samples;
ALTER TABLE new_samples RENAME TO samples;
CREATE INDEX samples_by_image ON samples (image);

UPDATE runs SET scored = (SELECT COUNT(*) FROM samples WHERE samples.run = runs.id);

-- Accepted and not scored yet. `folder` names the folder of kept files in which the pictures lie:
-- whoever has that and the pack scores.
CREATE TABLE pending_samples (
    id               TEXT NOT NULL PRIMARY KEY,
    run              TEXT NOT NULL REFERENCES runs (id),
    name             TEXT NOT NULL,
    content          TEXT NOT NULL,
    prompt           TEXT,
    image            TEXT NOT NULL,
    reference_hashes TEXT NOT NULL,
    auxiliary_hashes TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    pack             TEXT NOT NULL REFERENCES packs (digest),
    folder           TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('waiting', 'failed')),
    attempts         INTEGER NOT NULL,
    due              TEXT NOT NULL,
    reason           TEXT,
    detail           TEXT,
    created          TEXT NOT NULL,
    UNIQUE (run, name),
    CHECK ((state = 'failed') = (reason IS NOT NULL))
) STRICT;

CREATE INDEX pending_samples_by_age ON pending_samples (folder, pack, state, id);
CREATE INDEX pending_samples_by_image ON pending_samples (image);

-- Which files a run needs in a folder: photos (1) until it is finished, generated pictures (0) until they are scored.
CREATE TABLE kept_files (
    folder TEXT NOT NULL,
    run    TEXT NOT NULL REFERENCES runs (id),
    image  TEXT NOT NULL,
    photo  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (folder, run, image)
) STRICT, WITHOUT ROWID;

CREATE INDEX kept_files_by_image ON kept_files (image);
CREATE INDEX kept_files_by_run ON kept_files (run);

-- What the report of a run needs beside scores: for each attribute what is true and what was found, as JSON.
CREATE TABLE attribute_outcomes (
    sample   TEXT NOT NULL REFERENCES samples (id),
    pack     TEXT NOT NULL REFERENCES packs (digest),
    outcomes TEXT NOT NULL,
    PRIMARY KEY (sample, pack)
) STRICT, WITHOUT ROWID;
