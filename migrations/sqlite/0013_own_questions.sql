-- Questions that the operator names, beside those that every service knows.
CREATE TABLE new_preferences (
    id        TEXT NOT NULL PRIMARY KEY,
    question  TEXT NOT NULL,
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
