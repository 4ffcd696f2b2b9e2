-- Evidence behind stored scores, compressed. `id` is a UUIDv7 of the time of recording, so that expired rows are a range
-- of the primary key. Tables WITHOUT ROWID need a page more for each row of more than a kilobyte, so this one has rowids. A
-- sample that is scored again with further metrics has several rows.
CREATE TABLE evidence (
    id       TEXT NOT NULL PRIMARY KEY,
    sample   TEXT NOT NULL REFERENCES samples (id),
    pack     TEXT NOT NULL REFERENCES packs (digest),
    evidence BLOB NOT NULL
) STRICT;

CREATE INDEX evidence_by_sample ON evidence (sample);

-- Personal data: small WebP copies of images, if the operator keeps them.
CREATE TABLE thumbnails (
    image   TEXT NOT NULL PRIMARY KEY,
    webp    BLOB NOT NULL,
    created TEXT NOT NULL
) STRICT;

CREATE INDEX thumbnails_by_age ON thumbnails (created);

-- 1 if the photos of the dataset may be shown to others.
ALTER TABLE datasets ADD COLUMN redistributable INTEGER NOT NULL DEFAULT 0;
