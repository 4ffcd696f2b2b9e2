-- Evidence behind stored scores, compressed. `id` is a UUIDv7 of the time of recording, so that expired rows are a range
-- of the primary key. A sample that is scored again with further metrics has several rows.
CREATE TABLE evidence (
    id       uuid PRIMARY KEY,
    sample   uuid NOT NULL REFERENCES samples (id),
    pack     text COLLATE "C" NOT NULL REFERENCES packs (digest),
    evidence bytea NOT NULL
);

CREATE INDEX evidence_by_sample ON evidence (sample);

-- Personal data: small WebP copies of images, if the operator keeps them.
CREATE TABLE thumbnails (
    image   text COLLATE "C" PRIMARY KEY,
    webp    bytea NOT NULL,
    created timestamptz NOT NULL
);

CREATE INDEX thumbnails_by_age ON thumbnails (created);

-- 1 if the photos of the dataset may be shown to others.
ALTER TABLE datasets ADD COLUMN redistributable bigint NOT NULL DEFAULT 0;
