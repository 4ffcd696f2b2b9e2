-- Runs with their facts and state, samples that wait to be scored, and the files that are kept for them.

ALTER TABLE methods ADD COLUMN description text;

-- `declared` is 1 where somebody said what the run is; others came into being with their first sample. `waiting`, `failed`
-- and `scored` count the rows of `pending_samples` and `samples`, so that progress is one row to read.
ALTER TABLE runs
    ADD COLUMN declared bigint NOT NULL DEFAULT 0,
    ADD COLUMN dataset text COLLATE "C",
    ADD COLUMN split text COLLATE "C",
    ADD COLUMN flags text NOT NULL DEFAULT '{}',
    ADD COLUMN settings text NOT NULL DEFAULT '{}',
    ADD COLUMN metrics text,
    ADD COLUMN pack text COLLATE "C" REFERENCES packs (digest),
    ADD COLUMN service_version text,
    ADD COLUMN state text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'finishing', 'finished')),
    ADD COLUMN finished timestamptz,
    ADD COLUMN waiting bigint NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    ADD COLUMN failed bigint NOT NULL DEFAULT 0 CHECK (failed >= 0),
    ADD COLUMN scored bigint NOT NULL DEFAULT 0 CHECK (scored >= 0);

-- The counts are rewritten with every sample.
ALTER TABLE runs SET (fillfactor = 50);

CREATE INDEX runs_by_state ON runs (state, id);

-- A sample whose scores were computed elsewhere has no picture here.
ALTER TABLE samples
    ALTER COLUMN image DROP NOT NULL,
    ALTER COLUMN width DROP NOT NULL,
    ALTER COLUMN height DROP NOT NULL,
    ADD CHECK ((image IS NULL) = (width IS NULL) AND (image IS NULL) = (height IS NULL));

UPDATE runs SET scored = (SELECT COUNT(*) FROM samples WHERE samples.run = runs.id);

-- Accepted and not scored yet. `folder` names the folder of kept files in which the pictures lie:
-- whoever has that and the pack scores.
CREATE TABLE pending_samples (
    id               uuid PRIMARY KEY,
    run              uuid NOT NULL REFERENCES runs (id),
    name             text COLLATE "C" NOT NULL,
    content          text COLLATE "C" NOT NULL,
    prompt           text,
    image            text COLLATE "C" NOT NULL,
    reference_hashes text NOT NULL,
    auxiliary_hashes text NOT NULL,
    metadata         text NOT NULL,
    pack             text COLLATE "C" NOT NULL REFERENCES packs (digest),
    folder           text COLLATE "C" NOT NULL,
    state            text COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'failed')),
    attempts         bigint NOT NULL,
    due              timestamptz NOT NULL,
    reason           text COLLATE "C",
    detail           text,
    created          timestamptz NOT NULL,
    UNIQUE (run, name),
    CHECK ((state = 'failed') = (reason IS NOT NULL))
);

CREATE INDEX pending_samples_by_age ON pending_samples (folder, pack, state, id);
CREATE INDEX pending_samples_by_image ON pending_samples (image);

-- Which files a run needs in a folder: photos (1) until it is finished, generated pictures (0) until they are scored.
CREATE TABLE kept_files (
    folder text COLLATE "C" NOT NULL,
    run    uuid NOT NULL REFERENCES runs (id),
    image  text COLLATE "C" NOT NULL,
    photo  bigint NOT NULL,
    bytes  bigint NOT NULL,
    PRIMARY KEY (folder, run, image)
);

CREATE INDEX kept_files_by_image ON kept_files (image);
CREATE INDEX kept_files_by_run ON kept_files (run);

-- What the report of a run needs beside scores: for each attribute what is true and what was found, as JSON.
CREATE TABLE attribute_outcomes (
    sample   uuid NOT NULL REFERENCES samples (id),
    pack     text COLLATE "C" NOT NULL REFERENCES packs (digest),
    outcomes text NOT NULL,
    PRIMARY KEY (sample, pack)
);
