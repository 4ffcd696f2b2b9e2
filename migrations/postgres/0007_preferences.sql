-- What people say of pictures: which of two they prefer, or how good one is.

-- A vote names two runs (`run_a` < `run_b`) and what of the first is said of the same prompt in both: 1 preferred, -1 the other
-- one, 0 no difference. A rating names one run, has the same run twice, and a number. An annotator says it once: again replaces.
CREATE TABLE preferences (
    id        uuid NOT NULL PRIMARY KEY,
    question  text COLLATE "C" NOT NULL CHECK (question IN ('overall', 'object', 'relation')),
    annotator text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    run_a     uuid NOT NULL REFERENCES runs (id),
    run_b     uuid NOT NULL REFERENCES runs (id),
    value     double precision NOT NULL,
    created   timestamptz NOT NULL,
    UNIQUE (question, annotator, name, run_a, run_b)
);

CREATE INDEX preferences_by_run_a ON preferences (run_a, name);
CREATE INDEX preferences_by_run_b ON preferences (run_b, name);
