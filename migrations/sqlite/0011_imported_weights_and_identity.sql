-- Scores that were imported under a source's name: nobody knows with which weights they were computed.
CREATE TABLE new_packs (
    digest  TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    weights TEXT NOT NULL CHECK (weights IN ('official', 'demo', 'imported')),
    created TEXT NOT NULL
) STRICT;

INSERT INTO new_packs SELECT digest, name, weights, created FROM packs;
DROP TABLE packs;
ALTER TABLE new_packs RENAME TO packs;

UPDATE packs SET weights = 'imported'
WHERE digest IN (SELECT pack FROM scores JOIN samples ON samples.id = scores.sample WHERE samples.image IS NULL)
  AND digest NOT IN (SELECT pack FROM scores JOIN samples ON samples.id = scores.sample WHERE samples.image IS NOT NULL);

-- Which picture is more like the person?
CREATE TABLE new_preferences (
    id        TEXT NOT NULL PRIMARY KEY,
    question  TEXT NOT NULL CHECK (question IN ('overall', 'object', 'relation', 'identity')),
    annotator TEXT NOT NULL,
    name      TEXT NOT NULL,
    run_a     TEXT NOT NULL REFERENCES runs (id),
    run_b     TEXT NOT NULL REFERENCES runs (id),
    value     REAL NOT NULL,
    created   TEXT NOT NULL,
    UNIQUE (question, annotator, name, run_a, run_b)
) STRICT;

INSERT INTO new_preferences SELECT id, question, annotator, name, run_a, run_b, value, created FROM preferences;
DROP TABLE preferences;
ALTER TABLE new_preferences RENAME TO preferences;

CREATE INDEX preferences_by_run_a ON preferences (run_a, name);
CREATE INDEX preferences_by_run_b ON preferences (run_b, name);
