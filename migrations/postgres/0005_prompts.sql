-- The prompts of a dataset: for whom each is, and what it names.

CREATE TABLE prompts (
    dataset  uuid NOT NULL REFERENCES datasets (id),
    identity text COLLATE "C" NOT NULL,
    -- Counts from 0 within the identity, in the order in which its prompts were registered.
    position bigint NOT NULL,
    -- BLAKE3 of the text: a prompt is known by it among its identity's, and the text may be too long for an index.
    address  text COLLATE "C" NOT NULL,
    text     text NOT NULL,
    kind     text COLLATE "C",
    -- A JSON object of categories, detectables and relations.
    facts    text NOT NULL,
    created  timestamptz NOT NULL,
    PRIMARY KEY (dataset, identity, position)
);

CREATE UNIQUE INDEX prompts_by_text ON prompts (dataset, identity, address);
