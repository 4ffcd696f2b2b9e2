-- Which database this is, so that a spool folder is never held against another one.
CREATE TABLE installation (
    one     bigint PRIMARY KEY CHECK (one = 1),
    id      text COLLATE "C" NOT NULL,
    created timestamptz NOT NULL
);

-- Files that nobody needs any more, for the owner of the folder to remove: runs are finished and deleted by any instance.
CREATE TABLE released_files (
    folder text COLLATE "C" NOT NULL,
    image  text COLLATE "C" NOT NULL,
    PRIMARY KEY (folder, image)
);

-- Images that were deleted a short time ago, so that every instance forgets them and no scoring that began before writes their
-- faces again.
CREATE TABLE deleted_images (
    image   text COLLATE "C" PRIMARY KEY,
    deleted timestamptz NOT NULL
);

CREATE INDEX deleted_images_by_time ON deleted_images (deleted);
