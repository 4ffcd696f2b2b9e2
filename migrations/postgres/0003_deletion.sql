-- What deletion has to find: the photos of each sample by their content, and datasets that changed.

ALTER TABLE datasets ADD COLUMN revision bigint NOT NULL DEFAULT 0;

CREATE TABLE sample_photos (
    sample uuid NOT NULL REFERENCES samples (id),
    image  text COLLATE "C" NOT NULL,
    PRIMARY KEY (sample, image)
);

CREATE INDEX sample_photos_by_image ON sample_photos (image);

INSERT INTO sample_photos (sample, image)
    SELECT samples.id, photo FROM samples, jsonb_array_elements_text(CAST(reference_hashes AS jsonb)) AS photo
    UNION SELECT samples.id, photo FROM samples, jsonb_array_elements_text(CAST(auxiliary_hashes AS jsonb)) AS photo;
