-- When a file was released. Files of a bucket, which all instances share, stay for some minutes after it.
ALTER TABLE released_files ADD COLUMN released TEXT NOT NULL DEFAULT '1970-01-01T00:00:00.000000Z';
