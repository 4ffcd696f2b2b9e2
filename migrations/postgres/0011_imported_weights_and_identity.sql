-- Scores that were imported under a source's name: nobody knows with which weights they were computed.
ALTER TABLE packs DROP CONSTRAINT packs_weights_check;
ALTER TABLE packs ADD CHECK (weights IN ('official', 'demo', 'imported'));
UPDATE packs SET weights = 'imported'
WHERE digest IN (SELECT pack FROM scores JOIN samples ON samples.id = scores.sample WHERE samples.image IS NULL)
  AND digest NOT IN (SELECT pack FROM scores JOIN samples ON samples.id = scores.sample WHERE samples.image IS NOT NULL);

-- Which picture is more like the person?
ALTER TABLE preferences DROP CONSTRAINT preferences_question_check;
ALTER TABLE preferences ADD CHECK (question IN ('overall', 'object', 'relation', 'identity'));
