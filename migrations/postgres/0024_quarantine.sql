-- When a file was released. Files of a bucket, which all instances share, stay for some minutes after it.
ALTER TABLE released_files ADD COLUMN released timestamptz NOT NULL DEFAULT now();
