-- Studies: which images annotators are asked about, and what they answered.

-- `plan` is JSON: title, runs, prompts, questions, form, answers for each item, and so on. `secret` makes completion
-- codes that nobody can guess.
CREATE TABLE studies (
    id      TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    plan    TEXT NOT NULL,
    state   TEXT NOT NULL CHECK (state IN ('draft', 'open', 'closed')),
    secret  TEXT NOT NULL,
    created TEXT NOT NULL
) STRICT;

-- An item: the images of these runs (a JSON list of ids) for one prompt. Of a gold item, `right_run` is the run whose
-- image is the right answer.
CREATE TABLE study_items (
    study     TEXT NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    place     INTEGER NOT NULL,
    name      TEXT NOT NULL,
    runs      TEXT NOT NULL,
    right_run TEXT,
    PRIMARY KEY (study, place)
) STRICT;

-- An answer of an annotator to one question about one item. `shown` lists the runs (JSON) in the order of the images.
-- `chosen` is null for a tie and for "cannot tell".
CREATE TABLE study_answers (
    id        TEXT NOT NULL PRIMARY KEY,
    study     TEXT NOT NULL,
    item      INTEGER NOT NULL,
    question  TEXT NOT NULL,
    annotator TEXT NOT NULL,
    choice    TEXT NOT NULL CHECK (choice IN ('one', 'tie', 'cannot_tell')),
    chosen    TEXT,
    shown     TEXT NOT NULL,
    created   TEXT NOT NULL,
    UNIQUE (study, item, question, annotator),
    FOREIGN KEY (study, item) REFERENCES study_items (study, place) ON DELETE CASCADE,
    CHECK ((choice = 'one') = (chosen IS NOT NULL))
) STRICT;

CREATE INDEX study_answers_by_annotator ON study_answers (study, annotator);

-- The answers as votes between two runs, as in `preferences`: the chosen image over each other one. Images that were
-- not chosen are not compared with each other. All votes of one answer are one trial. Gold items have none. `value` is
-- null for "cannot tell" about two images.
CREATE TABLE study_votes (
    id          TEXT NOT NULL PRIMARY KEY,
    answer      TEXT NOT NULL REFERENCES study_answers (id) ON DELETE CASCADE,
    study       TEXT NOT NULL,
    question    TEXT NOT NULL,
    annotator   TEXT NOT NULL,
    name        TEXT NOT NULL,
    run_a       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    run_b       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    value       REAL,
    shown_first TEXT,
    created     TEXT NOT NULL
) STRICT;

CREATE INDEX study_votes_by_answer ON study_votes (answer);
CREATE INDEX study_votes_by_question ON study_votes (question, annotator);
CREATE INDEX study_votes_by_study ON study_votes (study, question);
CREATE INDEX study_votes_by_run_a ON study_votes (run_a, name);
CREATE INDEX study_votes_by_run_b ON study_votes (run_b, name);

-- Annotators whose answers no analysis counts: by the operator, or by their answers to gold items.
CREATE TABLE study_exclusions (
    study     TEXT NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    annotator TEXT NOT NULL,
    cause     TEXT NOT NULL CHECK (cause IN ('operator', 'gold')),
    reason    TEXT NOT NULL,
    created   TEXT NOT NULL,
    PRIMARY KEY (study, annotator, cause)
) STRICT;

-- Votes are counted by pair of images to choose the next one.
CREATE INDEX preferences_by_pair ON preferences (question, name, run_a, run_b);
