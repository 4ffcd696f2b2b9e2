-- What deletion has to find: the photos of each sample by their content, and datasets that changed.

ALTER TABLE datasets ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

CREATE TABLE sample_photos (
    sample TEXT NOT NULL REFERENCES samples (id),
    image  TEXT NOT NULL,
    PRIMARY KEY (sample, image)
) STRICT, WITHOUT ROWID;

CREATE INDEX sample_photos_by_image ON sample_photos (image);

INSERT INTO sample_photos (sample, image)
    SELECT samples.id, photo.value FROM samples, json_each(samples.reference_hashes) AS photo
    UNION SELECT samples.id, photo.value FROM samples, json_each(samples.auxiliary_hashes) AS photo;
