-- Datasets with their labelled photos, and the faces found in pictures.

CREATE TABLE datasets (
    id      uuid PRIMARY KEY,
    name    text COLLATE "C" NOT NULL UNIQUE,
    created timestamptz NOT NULL
);

-- A photo of an identity, known by its content; attributes are a JSON object of booleans.
CREATE TABLE photos (
    dataset    uuid NOT NULL REFERENCES datasets (id),
    identity   text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    image      text COLLATE "C" NOT NULL,
    attributes text NOT NULL,
    created    timestamptz NOT NULL,
    PRIMARY KEY (dataset, identity, name)
);

CREATE INDEX photos_by_image ON photos (image);

-- Personal data: what the face graphs with the digest `graphs` found in the picture with the hash `image`.
CREATE TABLE faces (
    image   text COLLATE "C" NOT NULL,
    graphs  text COLLATE "C" NOT NULL,
    faces   bytea NOT NULL,
    created timestamptz NOT NULL,
    PRIMARY KEY (image, graphs)
);

CREATE INDEX faces_by_age ON faces (created);
CREATE INDEX samples_by_image ON samples (image);
