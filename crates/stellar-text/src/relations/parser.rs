//! Parses predicates and their objects from a prompt, left to right.

use super::grammar::{GRAMMAR, Grammar};
use super::tokens::{Token, tokenize};

/// Upper limit on adjectives of one noun; no real prompt has more.
const MOST_ADJECTIVES: usize = 64;

/// A predicate of the person and its object, in the words of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) predicate: Predicate,
    pub(super) object: Vec<String>,
}

/// Relates the person to an object: a verb, a preposition, or a verb with its preposition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Predicate {
    pub(super) words: String,
    pub(super) has_verb: bool,
}

/// Everything a prompt says about its person.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) clauses: Vec<Clause>,
    /// Noun phrases after `as`.
    pub(super) roles: Vec<Vec<String>>,
    /// The verbs in order, without prepositions.
    pub(super) verbs: Vec<String>,
}

/// Parses a prompt.
pub(super) fn parse(prompt: &str) -> Parsed {
    let grammar = &*GRAMMAR;
    let tokens = tokenize(prompt, grammar);
    let placeholder = tokens.iter().position(|token| *token == Token::Subject);
    let named = || {
        tokens
            .iter()
            .position(|token| token.word().is_some_and(|word| grammar.subjects.contains(word)))
    };
    let subject = placeholder.or_else(named);
    let mut parsed = Parsed::default();
    // Text before the person names the medium (a photo of …), unless it says where (in Paris, …).
    let before = &tokens[..subject.unwrap_or(0)];
    if matches!(before.first(), Some(Token::Preposition(_))) {
        Scan::new(grammar, before, Last::Break, &mut parsed).run();
    }
    let after = &tokens[subject.map_or(0, |at| at + 1)..];
    let last = if subject.is_some() { Last::Subject } else { Last::Break };
    Scan::new(grammar, after, last, &mut parsed).run();
    parsed
}

/// Kind of the previous token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Break,
    Subject,
    Determiner,
    Of,
    Preposition,
    Verb,
    Noun,
    Conjunction,
}

struct Scan<'a> {
    grammar: &'a Grammar,
    tokens: &'a [Token],
    parsed: &'a mut Parsed,
    at: usize,
    last: Last,
    /// True if the noun phrase is a role.
    role: bool,
    /// True if the person's verb is finite (rides). Then a verb after `and` may be finite too.
    finite: bool,
    predicate: Option<Predicate>,
    phrase: Vec<String>,
    /// For each token, true if a list follows.
    lists: Vec<bool>,
}

impl<'a> Scan<'a> {
    fn new(grammar: &'a Grammar, tokens: &'a [Token], last: Last, parsed: &'a mut Parsed) -> Self {
        let mut scan = Self {
            grammar,
            tokens,
            parsed,
            at: 0,
            last,
            role: false,
            finite: false,
            predicate: None,
            phrase: Vec::new(),
            lists: Vec::new(),
        };
        scan.lists = scan.lists();
        scan
    }

    fn run(mut self) {
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::Subject => self.flush(),
                Token::Stop => {
                    self.close();
                    self.start_segment();
                }
                Token::Comma => self.comma(),
                Token::Preposition(preposition) => self.preposition(preposition),
                Token::Word(word) => self.word(word),
            }
            self.at += 1;
        }
        self.flush();
    }

    /// Ends the noun phrase and makes it an object of the predicate, if there is one.
    fn flush(&mut self) {
        let mut phrase = std::mem::take(&mut self.phrase);
        while phrase.last().is_some_and(|word| word == "of" || word == "and") {
            phrase.pop();
        }
        if phrase.is_empty() {
        } else if self.role {
            self.parsed.roles.push(phrase);
        } else if let Some(predicate) = &self.predicate {
            self.parsed.clauses.push(Clause { predicate: predicate.clone(), object: phrase });
        }
    }

    /// Ends the noun phrase and the predicate or role that it belongs to.
    fn close(&mut self) {
        self.flush();
        self.predicate = None;
        self.role = false;
    }

    fn open_verb(&mut self, verb: String) {
        self.close();
        self.parsed.verbs.push(verb.clone());
        self.predicate = Some(Predicate { words: verb, has_verb: true });
        self.last = Last::Verb;
    }

    fn comma(&mut self) {
        self.flush();
        let next = self.at + 1;
        if self.lists.get(next).copied().unwrap_or(false) {
            self.last = Last::Conjunction;
        } else {
            self.start_segment();
        }
    }

    /// Skips the text after a comma or stop if it says nothing about the person.
    fn start_segment(&mut self) {
        self.last = Last::Break;
        if !self.predicate_follows(self.at + 1) {
            // A noun phrase by itself describes the image: oil on canvas, highly detailed.
            self.skip_to(|token| matches!(token, Token::Comma | Token::Stop | Token::Subject));
        }
    }

    /// Moves to just before the next matching token.
    fn skip_to(&mut self, wanted: impl Fn(&Token) -> bool) {
        let rest = &self.tokens[self.at + 1..];
        self.at += rest.iter().position(wanted).unwrap_or(rest.len());
    }

    /// Returns for each token if it starts a list such as `…, a pen and a cup`: more objects of the
    /// same predicate, closed by a conjunction.
    ///
    /// This is one pass from the end, since a prompt may be nothing but commas: a place has the
    /// value of the next one unless the token there decides.
    fn lists(&self) -> Vec<bool> {
        // `list`: a list follows this place. `with_noun`: a list would follow if a noun came first.
        let (mut list, mut with_noun) = (false, false);
        let mut lists = vec![false; self.tokens.len() + 1];
        let mut predicates = self.predicates();
        for (at, token) in self.tokens.iter().enumerate().rev() {
            let predicate_follows = predicates.pop().unwrap_or(false);
            (list, with_noun) = match token {
                Token::Comma => (list, with_noun),
                Token::Word(word) if word == "and" || word == "or" => (false, !predicate_follows),
                Token::Word(word) if !self.is_closed(word) && !self.is_gerund(word) => {
                    (with_noun, with_noun)
                }
                Token::Word(word) if self.grammar.determiners.contains(word) => (list, with_noun),
                _ => (false, false),
            };
            lists[at] = list;
        }
        lists
    }

    /// Returns for each token if a predicate follows it.
    fn predicates(&self) -> Vec<bool> {
        let mut follows = false;
        let mut predicates = vec![false; self.tokens.len()];
        for (at, token) in self.tokens.iter().enumerate().rev() {
            predicates[at] = follows;
            if !self.is_skipped(token) {
                follows = self.is_predicate(token);
            }
        }
        predicates
    }

    /// Returns true if a verb, preposition, role or conjunction comes next.
    fn predicate_follows(&self, from: usize) -> bool {
        let rest = &self.tokens[from.min(self.tokens.len())..];
        rest.iter()
            .find(|token| !self.is_skipped(token))
            .is_some_and(|token| self.is_predicate(token))
    }

    /// Returns true for adverbs, which say nothing about what follows.
    fn is_skipped(&self, token: &Token) -> bool {
        token.word().is_some_and(|word| self.grammar.adverbs.contains(word) || self.is_adverb(word))
    }

    fn is_predicate(&self, token: &Token) -> bool {
        match token {
            Token::Preposition(_) | Token::Subject => true,
            Token::Word(word) => {
                let grammar = self.grammar;
                self.is_gerund(word)
                    || [
                        &grammar.conjunctions,
                        &grammar.role_markers,
                        &grammar.participles,
                        &grammar.dropped_prepositions,
                    ]
                    .iter()
                    .any(|set| set.contains(word))
            }
            _ => false,
        }
    }

    fn preposition(&mut self, preposition: &str) {
        let next = self.tokens.get(self.at + 1);
        let infinitive =
            next.and_then(Token::word).and_then(|word| self.grammar.infinitives.get(word));
        if preposition == "to"
            && let Some(verb) = infinitive
        {
            self.open_verb(verb.clone());
            self.at += 1;
            return;
        }
        let bare = self.phrase.is_empty();
        match (&mut self.predicate, self.last) {
            (Some(predicate), Last::Verb) if bare => {
                let ends = !matches!(next, Some(Token::Word(word)) if !self.grammar.conjunctions.contains(word));
                if ends && self.grammar.particles.contains(preposition) {
                    return;
                }
                predicate.words = format!("{} {preposition}", predicate.words);
            }
            (Some(predicate), Last::Preposition) if bare => {
                predicate.words = format!("{} {preposition}", predicate.words);
            }
            _ => {
                let after_comma = self.at > 0 && self.tokens[self.at - 1] == Token::Comma;
                self.close();
                // `…, by Monet` names the artist.
                if !(preposition == "by" && after_comma) {
                    self.predicate =
                        Some(Predicate { words: preposition.to_owned(), has_verb: false });
                }
            }
        }
        self.last = Last::Preposition;
    }

    fn word(&mut self, word: &str) {
        let grammar = self.grammar;
        if grammar.conjunctions.contains(word) {
            self.conjunction(word);
        } else if grammar.role_markers.contains(word) {
            self.close();
            self.role = true;
            self.last = Last::Preposition;
        } else if grammar.dropped_prepositions.contains(word) {
            self.close();
            self.last = Last::Preposition;
        } else if grammar.relative_pronouns.contains(word) {
            self.flush();
            self.skip_to(|token| {
                matches!(token, Token::Comma | Token::Stop | Token::Subject)
                    || token.word().is_some_and(|word| grammar.conjunctions.contains(word))
            });
        } else if word == "of" {
            self.of();
        } else if grammar.determiners.contains(word) {
            // a portrait of a cat is one phrase
            if self.last != Last::Of {
                self.flush();
            }
            self.last = Last::Determiner;
        } else if let Some(verb) = self.verb(word) {
            self.finite |= verb != word;
            self.open_verb(verb);
        } else if self.last == Last::Verb && grammar.particles.contains(word) {
            self.preposition(word);
        } else if grammar.media_participles.contains(word) && self.preposition_follows() {
            self.close();
            self.skip_to(|token| matches!(token, Token::Comma | Token::Stop | Token::Subject));
        } else if grammar.participles.contains(word) && self.preposition_follows() {
            self.open_verb(word.to_owned());
        } else if grammar.adverbs.contains(word)
            || (self.is_adverb(word) && self.last != Last::Determiner)
        {
            self.flush();
        } else {
            self.phrase.push(word.to_owned());
            self.last = Last::Noun;
        }
    }

    fn conjunction(&mut self, word: &str) {
        let next = self.tokens.get(self.at + 1).and_then(Token::word);
        let next_is_adjective = next.is_some_and(|word| self.grammar.adjectives.contains(word));
        if word == "and" && !self.phrase.is_empty() && self.only_adjectives() && next_is_adjective {
            self.phrase.push(word.to_owned());
            return;
        }
        self.flush();
        if word == "and" && self.last == Last::Subject && !self.predicate_follows(self.at + 1) {
            self.predicate = Some(Predicate { words: word.to_owned(), has_verb: false });
        }
        self.last = Last::Conjunction;
    }

    fn of(&mut self) {
        if !self.phrase.is_empty() {
            self.phrase.push("of".to_owned());
            self.last = Last::Of;
        } else if let (Some(predicate), Last::Verb) = (&mut self.predicate, self.last) {
            predicate.words.push_str(" of");
            self.last = Last::Preposition;
        }
    }

    fn preposition_follows(&self) -> bool {
        matches!(self.tokens.get(self.at + 1), Some(Token::Preposition(_)))
            || self
                .tokens
                .get(self.at + 1)
                .and_then(Token::word)
                .is_some_and(|word| self.grammar.role_markers.contains(word))
    }

    /// Returns the -ing form of a word if it is a verb here.
    fn verb(&self, word: &str) -> Option<String> {
        let grammar = self.grammar;
        if let Some(verb) = grammar.finite.get(word)
            && (self.last == Last::Subject || (self.finite && self.last == Last::Conjunction))
        {
            return Some(verb.clone());
        }
        let next = self.tokens.get(self.at + 1);
        let determiner_follows =
            next.and_then(Token::word).is_some_and(|next| grammar.determiners.contains(next));
        if grammar.both.contains(word) {
            let starts = self.phrase.is_empty()
                && matches!(self.last, Last::Subject | Last::Conjunction | Last::Break);
            // at the North Pole building an igloo
            return (starts || self.last == Last::Noun && determiner_follows)
                .then(|| word.to_owned());
        }
        if !self.is_gerund(word) {
            return None;
        }
        let noun_follows = next.and_then(Token::word).is_some_and(|next| {
            !self.is_closed(next) && !self.is_gerund(next) && !self.is_adverb(next)
        });
        let is_verb = match self.last {
            Last::Determiner | Last::Of => false,
            // in swimming goggles, but: from eating a cake; what a dropped preposition governs is
            // dropped
            Last::Preposition => determiner_follows && self.predicate.is_some(),
            // wearing boxing gloves, but: enjoying eating pizza, sitting reading
            Last::Verb => {
                let before =
                    self.predicate.as_ref().map_or("", |predicate| predicate.words.as_str());
                grammar.catenatives.contains(before) || !noun_follows
            }
            // a big smiling bear, but: in black holding an orange
            Last::Noun => determiner_follows || !self.only_adjectives(),
            Last::Break | Last::Subject | Last::Conjunction => true,
        };
        is_verb.then(|| word.to_owned())
    }

    fn is_gerund(&self, word: &str) -> bool {
        word.len() > 4
            && word.ends_with("ing")
            && !word.contains('-')
            && !self.grammar.not_verbs.contains(word)
    }

    fn is_adverb(&self, word: &str) -> bool {
        word.len() > 4
            && word.ends_with("ly")
            && !self.grammar.not_adverbs.contains(word)
            && !self.grammar.adjectives.contains(word)
    }

    /// Returns true if a word cannot be a noun.
    fn is_closed(&self, word: &str) -> bool {
        let grammar = self.grammar;
        word == "of"
            || [
                &grammar.determiners,
                &grammar.conjunctions,
                &grammar.role_markers,
                &grammar.dropped_prepositions,
                &grammar.relative_pronouns,
                &grammar.adverbs,
            ]
            .iter()
            .any(|set| set.contains(word))
    }

    /// Returns true if the phrase has adjectives only. It returns false for a very long phrase:
    /// else each further word would walk it again.
    fn only_adjectives(&self) -> bool {
        self.phrase.len() <= MOST_ADJECTIVES
            && self.phrase.iter().all(|word| {
                self.grammar.adjectives.contains(word)
                    || self.is_gerund(word)
                    || ["ful", "ous", "less", "ish"].iter().any(|end| word.ends_with(end))
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computes the values of [`Scan::lists`] by walking the tokens that follow.
    fn list_follows(scan: &Scan<'_>, from: usize) -> bool {
        let mut nouns = 0;
        for (at, token) in scan.tokens.iter().enumerate().skip(from) {
            match token {
                Token::Comma => {}
                Token::Word(word) if word == "and" || word == "or" => {
                    return nouns > 0 && !scan.predicate_follows(at + 1);
                }
                Token::Word(word) if !scan.is_closed(word) && !scan.is_gerund(word) => nouns += 1,
                Token::Word(word) if scan.grammar.determiners.contains(word) => {}
                _ => return false,
            }
        }
        false
    }

    proptest! {
        #[test]
        fn one_pass_finds_the_same_lists_as_walking(words in prop::collection::vec(
            prop::sample::select(vec![
                ",", ",", ",", "and", "or", "a", "the", "pen", "cup", "riding", "holding", "quickly", "really", "on", "in",
                "{}", "who", "as", ".", "person", "with", "of",
            ]),
            0..40,
        )) {
            let tokens = tokenize(&words.join(" "), &GRAMMAR);
            let mut parsed = Parsed::default();
            let scan = Scan::new(&GRAMMAR, &tokens, Last::Break, &mut parsed);
            for at in 0..=tokens.len() {
                prop_assert_eq!(scan.lists[at], list_follows(&scan, at), "at {} of \
                    {:?}", at, tokens);
            }
        }
    }
}
