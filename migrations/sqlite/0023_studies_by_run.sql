-- The runs whose images a study shows: deletion finds the items of a run or sample by an index.

-- A study without a row was written by an older program, which does not know of the table. Deletion reads all items of
-- such a study.
CREATE TABLE study_runs (
    run   TEXT NOT NULL,
    study TEXT NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    PRIMARY KEY (run, study)
) STRICT, WITHOUT ROWID;

CREATE INDEX study_runs_by_study ON study_runs (study);
CREATE INDEX study_items_by_name ON study_items (study, name);

INSERT INTO study_runs (run, study)
    SELECT DISTINCT shown.value, study_items.study FROM study_items, json_each(study_items.runs) AS shown;
