-- Datasets with their labelled photos, and the faces found in pictures.

CREATE TABLE datasets (
    id      TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL
) STRICT;

-- A photo of an identity, known by its content; attributes are a JSON object of booleans.
CREATE TABLE photos (
    dataset    TEXT NOT NULL REFERENCES datasets (id),
    identity   TEXT NOT NULL,
    name       TEXT NOT NULL,
    image      TEXT NOT NULL,
    attributes TEXT NOT NULL,
    created    TEXT NOT NULL,
    PRIMARY KEY (dataset, identity, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX photos_by_image ON photos (image);

-- Personal data: what the face graphs with the digest `graphs` found in the picture with the hash `image`.
CREATE TABLE faces (
    image   TEXT NOT NULL,
    graphs  TEXT NOT NULL,
    faces   BLOB NOT NULL,
    created TEXT NOT NULL,
    PRIMARY KEY (image, graphs)
) STRICT, WITHOUT ROWID;

CREATE INDEX faces_by_age ON faces (created);
CREATE INDEX samples_by_image ON samples (image);
