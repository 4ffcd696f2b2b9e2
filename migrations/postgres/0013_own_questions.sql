-- Questions that the operator names, beside those that every service knows.
ALTER TABLE preferences DROP CONSTRAINT preferences_question_check;
