//! Word lists of the relation parser, from `assets/relations/grammar.toml`.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use serde::Deserialize;

/// The grammar bundled with the crate.
pub(super) static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| {
    Grammar::parse(include_str!("../../../../assets/relations/grammar.toml"))
        .expect("a test parses the same text")
});

/// Closed classes of words, and verbs whose other forms are derived.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grammar {
    pub(super) conjunctions: HashSet<String>,
    pub(super) determiners: HashSet<String>,
    pub(super) subjects: HashSet<String>,
    pub(super) pronouns: HashSet<String>,
    pub(super) prepositions: HashSet<String>,
    compound_prepositions: Vec<String>,
    pub(super) dropped_prepositions: HashSet<String>,
    pub(super) role_markers: HashSet<String>,
    pub(super) particles: HashSet<String>,
    pub(super) adverbs: HashSet<String>,
    pub(super) not_adverbs: HashSet<String>,
    pub(super) relative_pronouns: HashSet<String>,
    pub(super) not_verbs: HashSet<String>,
    pub(super) both: HashSet<String>,
    pub(super) adjectives: HashSet<String>,
    pub(super) catenatives: HashSet<String>,
    pub(super) participles: HashSet<String>,
    pub(super) media_participles: HashSet<String>,
    pub(super) abstract_heads: HashSet<String>,
    pub(super) roles: HashSet<String>,
    verbs: Vec<String>,
    /// Words of each compound preposition, longest first.
    #[serde(skip)]
    pub(super) compounds: Vec<Vec<String>>,
    /// Base form → -ing form.
    #[serde(skip)]
    pub(super) infinitives: HashMap<String, String>,
    /// Third person → -ing form.
    #[serde(skip)]
    pub(super) finite: HashMap<String, String>,
}

impl Grammar {
    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let mut grammar: Self = toml::from_str(text)?;
        grammar.compounds = grammar
            .compound_prepositions
            .iter()
            .map(|words| words.split(' ').map(str::to_owned).collect())
            .collect();
        grammar.compounds.sort_by_key(|words: &Vec<String>| std::cmp::Reverse(words.len()));
        for base in &grammar.verbs {
            grammar.infinitives.insert(base.clone(), ing(base));
            grammar.finite.insert(third_person(base), ing(base));
        }
        Ok(grammar)
    }
}

/// Returns the -ing form of a verb: riding, lying, running, carrying.
fn ing(base: &str) -> String {
    let is_vowel = |c: char| "aeiou".contains(c);
    let letters: Vec<char> = base.chars().rev().take(3).collect();
    if let Some(stem) = base.strip_suffix("ie") {
        return format!("{stem}ying");
    }
    if let Some(stem) = base.strip_suffix('e').filter(|stem| !stem.ends_with('e')) {
        return format!("{stem}ing");
    }
    // If the only syllable ends in consonant, vowel, consonant, the last letter doubles, except w,
    // x and y.
    let one_syllable = base.chars().filter(|&c| is_vowel(c)).count() == 1;
    match letters[..] {
        [last, vowel, ..]
            if one_syllable && is_vowel(vowel) && !is_vowel(last) && !"wxy".contains(last) =>
        {
            format!("{base}{last}ing")
        }
        _ => format!("{base}ing"),
    }
}

/// Returns the third person of a verb: rides, catches, carries.
fn third_person(base: &str) -> String {
    if base == "have" {
        return "has".to_owned();
    }
    let before_last = base.chars().rev().nth(1);
    match base.strip_suffix('y') {
        Some(stem) if before_last.is_some_and(|c| !"aeiou".contains(c)) => format!("{stem}ies"),
        _ if ["s", "sh", "ch", "x", "z"].iter().any(|end| base.ends_with(end)) => {
            format!("{base}es")
        }
        _ => format!("{base}s"),
    }
}

/// Returns the singular of a noun. For any other word it returns some text that is equal for equal
/// words.
pub(super) fn lemma(word: &str) -> String {
    let irregular = match word {
        "men" => "man",
        "women" => "woman",
        "children" => "child",
        "people" => "person",
        "feet" => "foot",
        "teeth" => "tooth",
        "mice" => "mouse",
        "geese" => "goose",
        "knives" => "knife",
        "wolves" => "wolf",
        "leaves" => "leaf",
        "shelves" => "shelf",
        "scarves" => "scarf",
        "calves" => "calf",
        "skis" => "ski",
        "taxis" => "taxi",
        "buses" => "bus",
        "shoes" => "shoe",
        "canoes" => "canoe",
        _ => "",
    };
    if !irregular.is_empty() {
        return irregular.to_owned();
    }
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 2) {
        return format!("{stem}y");
    }
    let sibilant =
        |stem: &&str| ["s", "x", "z", "ch", "sh", "o"].iter().any(|end| stem.ends_with(end));
    if let Some(stem) = word.strip_suffix("es").filter(sibilant) {
        return stem.to_owned();
    }
    match word.strip_suffix('s') {
        Some(stem)
            if stem.len() > 2 && !["s", "u", "i", "'"].iter().any(|end| stem.ends_with(end)) =>
        {
            stem.to_owned()
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verb_forms_follow_their_spelling() {
        for (base, gerund, third) in [
            ("ride", "riding", "rides"),
            ("run", "running", "runs"),
            ("carry", "carrying", "carries"),
            ("lie", "lying", "lies"),
            ("eat", "eating", "eats"),
            ("catch", "catching", "catches"),
            ("play", "playing", "plays"),
            ("throw", "throwing", "throws"),
            ("ski", "skiing", "skis"),
            ("sew", "sewing", "sews"),
            ("visit", "visiting", "visits"),
            ("have", "having", "has"),
            ("slay", "slaying", "slays"),
        ] {
            assert_eq!((ing(base).as_str(), third_person(base).as_str()), (gerund, third));
        }
    }

    #[test]
    fn lemmas_are_singular() {
        for (word, expected) in [
            ("dogs", "dog"),
            ("glasses", "glass"),
            ("skis", "ski"),
            ("cherries", "cherry"),
            ("bus", "bus"),
            ("dress", "dress"),
            ("tennis", "tennis"),
            ("potatoes", "potato"),
            ("jeans", "jean"),
            ("wolves", "wolf"),
            ("pies", "pie"),
        ] {
            assert_eq!(lemma(word), expected, "{word}");
        }
    }

    #[test]
    fn bundled_grammar_parses() {
        let grammar =
            Grammar::parse(include_str!("../../../../assets/relations/grammar.toml")).unwrap();
        assert!(grammar.both.is_subset(&grammar.not_verbs));
        assert_eq!(grammar.finite["holds"], "holding");
    }
}
