-- The prompts of a dataset: for whom each is, and what it names.

CREATE TABLE prompts (
    dataset  TEXT NOT NULL REFERENCES datasets (id),
    identity TEXT NOT NULL,
    -- Counts from 0 within the identity, in the order in which its prompts were registered.
    position INTEGER NOT NULL,
    -- BLAKE3 of the text: a prompt is known by it among its identity's, and the text may be too long for an index.
    address  TEXT NOT NULL,
    text     TEXT NOT NULL,
    kind     TEXT,
    -- A JSON object of categories, detectables and relations.
    facts    TEXT NOT NULL,
    created  TEXT NOT NULL,
    PRIMARY KEY (dataset, identity, position)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX prompts_by_text ON prompts (dataset, identity, address);
