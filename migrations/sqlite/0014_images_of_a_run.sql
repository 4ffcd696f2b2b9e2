-- Recording a sample releases its image: both tables are asked for the image within its run.

DROP INDEX pending_samples_by_image;
CREATE INDEX pending_samples_by_image ON pending_samples (image, run);

DROP INDEX kept_files_by_image;
CREATE INDEX kept_files_by_image ON kept_files (image, run);
