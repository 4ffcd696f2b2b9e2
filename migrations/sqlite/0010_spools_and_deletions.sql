-- Which database this is, so that a spool folder is never held against another one.
CREATE TABLE installation (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    id      TEXT NOT NULL,
    created TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Files that nobody needs any more, for the owner of the folder to remove: runs are finished and deleted by any instance.
CREATE TABLE released_files (
    folder TEXT NOT NULL,
    image  TEXT NOT NULL,
    PRIMARY KEY (folder, image)
) STRICT, WITHOUT ROWID;

-- Images that were deleted a short time ago, so that every instance forgets them and no scoring that began before writes their
-- faces again.
CREATE TABLE deleted_images (
    image   TEXT NOT NULL PRIMARY KEY,
    deleted TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX deleted_images_by_time ON deleted_images (deleted);
