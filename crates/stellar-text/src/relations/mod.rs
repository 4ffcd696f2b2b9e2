//! Finds the relations that a prompt asks for: (person, predicate, object).
//!
//! Prompts of evaluation sets follow templates
//! (`{} as an astronaut holding a cup of coffee near Saturn`), so closed classes of words and word
//! order are enough; no model is needed. Two ambiguities are resolved in favour of the person: a
//! preposition after an object says where the person is, and a verb after an object says what the
//! person does.
//!
//! Annotated relations are used as they are.

mod grammar;
mod parser;
mod tokens;
mod vocabulary;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use vocabulary::{Predicates, Vocabulary};

use super::cut;

use self::{
    grammar::{GRAMMAR, lemma},
    parser::{Clause, Parsed, parse},
    tokens::{Token, tokenize},
};

/// A relation of the person in a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Subject; always `person` if parsed.
    pub subject: String,
    /// A verb, a preposition, or a verb with its preposition, in the words of the prompt.
    pub predicate: String,
    /// Object: the noun phrase of the prompt without determiners, or the detectable in it.
    pub object: String,
    /// Interaction if a verb is involved, else location.
    pub kind: RelationKind,
    /// Source of the relation.
    pub source: RelationSource,
}

/// Kind of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// The person does something.
    Interaction,
    /// The person is somewhere.
    Location,
}

/// Source of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RelationSource {
    /// Annotated with the prompt.
    Annotation,
    /// Parsed from the prompt.
    Parsed,
    /// A detectable that the prompt does not name (`skiing`, skis), with the last verb as its
    /// predicate.
    Implied,
}

/// Finds all relations of a prompt, except those whose object is not a thing (a sunny day, the
/// style of Monet).
#[must_use]
pub fn relations(prompt: &str) -> Vec<Relation> {
    let is_thing = |clause: &&Clause| {
        let head = head(&clause.object);
        !GRAMMAR.abstract_heads.contains(head) && !GRAMMAR.adjectives.contains(head)
    };
    let mut found = Vec::new();
    for clause in parse(cut(prompt).0).clauses.iter().filter(is_thing) {
        push(&mut found, relation(clause, &clause.object.join(" ")));
    }
    found
}

/// Finds one relation for each object that the detector will search for, without roles such as
/// `astronaut`.
///
/// A detectable that the prompt does not name gets the prompt's last verb as its predicate. Without
/// a verb it has no relation.
#[must_use]
pub fn relations_of(prompt: &str, detectables: &[String]) -> Vec<Relation> {
    let Parsed { clauses, roles, verbs } = parse(cut(prompt).0);
    // Done once for any number of detectables.
    let objects: Vec<_> = clauses.iter().map(|clause| lemmas(&clause.object)).collect();
    let roles: Vec<_> = roles.iter().map(|role| lemmas(role)).collect();
    let mut found = Vec::new();
    for detectable in detectables {
        let detectable = detectable.trim().to_lowercase();
        if detectable.is_empty() || GRAMMAR.roles.contains(&detectable) {
            continue;
        }
        let wanted: Vec<String> = detectable.split_whitespace().map(lemma).collect();
        if let Some(at) = objects.iter().position(|object| holds(object, &wanted)) {
            push(&mut found, relation(&clauses[at], &detectable));
        } else if let (Some(verb), false) =
            (verbs.last(), roles.iter().any(|role| holds(role, &wanted)))
        {
            push(
                &mut found,
                Relation {
                    subject: PERSON.to_owned(),
                    predicate: verb.clone(),
                    object: detectable,
                    kind: RelationKind::Interaction,
                    source: RelationSource::Implied,
                },
            );
        }
    }
    found
}

/// Words of a prompt by their part of speech.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Verbs of the person, as in `riding`; what says nothing about the person has none.
    pub verbs: Vec<String>,
    /// Prepositions; those of several words are one, as in `in front of`.
    pub prepositions: Vec<String>,
}

/// Finds the verbs and prepositions of a prompt. They are those of the parser that finds relations,
/// not of a general tagger.
#[must_use]
pub fn parts(prompt: &str) -> Parts {
    let prompt = cut(prompt).0;
    let prepositions = tokenize(prompt, &GRAMMAR).into_iter().filter_map(|token| match token {
        Token::Preposition(words) => Some(words),
        _ => None,
    });
    Parts { verbs: parse(prompt).verbs, prepositions: prepositions.collect() }
}

/// Converts annotated triplets of subject, predicate and object to relations.
#[must_use]
pub fn annotated(triplets: &[[String; 3]]) -> Vec<Relation> {
    let mut found = Vec::new();
    for [subject, predicate, object] in triplets {
        let first = predicate.split_whitespace().next().unwrap_or_default().to_lowercase();
        let located = GRAMMAR.prepositions.contains(&first)
            || matches!(first.as_str(), "next" | "close" | "far");
        let kind = if located { RelationKind::Location } else { RelationKind::Interaction };
        let (subject, predicate, object) = (subject.clone(), predicate.clone(), object.clone());
        push(
            &mut found,
            Relation { subject, predicate, object, kind, source: RelationSource::Annotation },
        );
    }
    found
}

/// Returns true if the subject of an annotated relation is the person of the prompt: a role, a
/// pronoun or any word for a person.
#[must_use]
pub fn is_person(subject: &str) -> bool {
    let words: Vec<String> = subject.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<String> = words
        .into_iter()
        .filter(|word| !GRAMMAR.determiners.contains(word))
        .map(|word| lemma(&word))
        .collect();
    let whole = words.join(" ");
    GRAMMAR.pronouns.contains(&whole)
        || GRAMMAR.roles.contains(&whole)
        || GRAMMAR.subjects.contains(head(&words))
}

/// Returns true if a prompt is longer than the part that is read.
#[must_use]
pub fn is_cut(prompt: &str) -> bool {
    cut(prompt).1
}

/// Returns true if a label only says what the person is, such as `astronaut`, in upper or lower
/// case.
#[must_use]
pub fn is_role(label: &str) -> bool {
    let words: Vec<String> = label.split_whitespace().map(str::to_lowercase).collect();
    GRAMMAR.roles.contains(&words.join(" "))
}

/// The subject of every parsed relation.
const PERSON: &str = "person";

fn relation(clause: &Clause, object: &str) -> Relation {
    let kind =
        if clause.predicate.has_verb { RelationKind::Interaction } else { RelationKind::Location };
    let predicate = clause.predicate.words.clone();
    Relation {
        subject: PERSON.to_owned(),
        predicate,
        object: object.to_owned(),
        kind,
        source: RelationSource::Parsed,
    }
}

fn push(found: &mut Vec<Relation>, relation: Relation) {
    if !found.contains(&relation) {
        found.push(relation);
    }
}

/// Returns the head of a noun phrase: the last word before `of`.
fn head(phrase: &[String]) -> &str {
    let end = phrase.iter().position(|word| word == "of").unwrap_or(phrase.len());
    phrase[..end].last().map_or("", String::as_str)
}

fn lemmas(phrase: &[String]) -> Vec<String> {
    phrase.iter().map(|word| lemma(word)).collect()
}

/// Returns true if the lemmas of a noun phrase contain the wanted ones in a row.
fn holds(lemmas: &[String], wanted: &[String]) -> bool {
    lemmas.windows(wanted.len()).any(|window| window == wanted)
}
