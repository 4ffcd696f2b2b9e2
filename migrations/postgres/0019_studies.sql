-- Studies: which images annotators are asked about, and what they answered.

-- `plan` is JSON: title, runs, prompts, questions, form, answers for each item, and so on. `secret` makes completion
-- codes that nobody can guess.
CREATE TABLE studies (
    id      uuid NOT NULL PRIMARY KEY,
    name    text COLLATE "C" NOT NULL UNIQUE,
    plan    text NOT NULL,
    state   text NOT NULL CHECK (state IN ('draft', 'open', 'closed')),
    secret  text NOT NULL,
    created timestamptz NOT NULL
);

-- An item: the images of these runs (a JSON list of ids) for one prompt. Of a gold item, `right_run` is the run whose
-- image is the right answer.
CREATE TABLE study_items (
    study     uuid NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    place     bigint NOT NULL,
    name      text COLLATE "C" NOT NULL,
    runs      text NOT NULL,
    right_run uuid,
    PRIMARY KEY (study, place)
);

-- An answer of an annotator to one question about one item. `shown` lists the runs (JSON) in the order of the images.
-- `chosen` is null for a tie and for "cannot tell".
CREATE TABLE study_answers (
    id        uuid NOT NULL PRIMARY KEY,
    study     uuid NOT NULL,
    item      bigint NOT NULL,
    question  text COLLATE "C" NOT NULL,
    annotator text COLLATE "C" NOT NULL,
    choice    text NOT NULL CHECK (choice IN ('one', 'tie', 'cannot_tell')),
    chosen    uuid,
    shown     text NOT NULL,
    created   timestamptz NOT NULL,
    UNIQUE (study, item, question, annotator),
    FOREIGN KEY (study, item) REFERENCES study_items (study, place) ON DELETE CASCADE,
    CHECK ((choice = 'one') = (chosen IS NOT NULL))
);

CREATE INDEX study_answers_by_annotator ON study_answers (study, annotator);

-- The answers as votes between two runs, as in `preferences`: the chosen image over each other one. Images that were
-- not chosen are not compared with each other. All votes of one answer are one trial. Gold items have none. `value` is
-- null for "cannot tell" about two images.
CREATE TABLE study_votes (
    id          uuid NOT NULL PRIMARY KEY,
    answer      uuid NOT NULL REFERENCES study_answers (id) ON DELETE CASCADE,
    study       uuid NOT NULL,
    question    text COLLATE "C" NOT NULL,
    annotator   text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    run_a       uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    run_b       uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    value       double precision,
    shown_first uuid,
    created     timestamptz NOT NULL
);

CREATE INDEX study_votes_by_answer ON study_votes (answer);
CREATE INDEX study_votes_by_question ON study_votes (question, annotator);
CREATE INDEX study_votes_by_study ON study_votes (study, question);
CREATE INDEX study_votes_by_run_a ON study_votes (run_a, name);
CREATE INDEX study_votes_by_run_b ON study_votes (run_b, name);

-- Annotators whose answers no analysis counts: by the operator, or by their answers to gold items.
CREATE TABLE study_exclusions (
    study     uuid NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    annotator text COLLATE "C" NOT NULL,
    cause     text NOT NULL CHECK (cause IN ('operator', 'gold')),
    reason    text NOT NULL,
    created   timestamptz NOT NULL,
    PRIMARY KEY (study, annotator, cause)
);

-- Votes are counted by pair of images to choose the next one.
CREATE INDEX preferences_by_pair ON preferences (question, name, run_a, run_b);
