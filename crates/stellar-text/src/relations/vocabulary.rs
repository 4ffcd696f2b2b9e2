//! Maps predicates and objects of a prompt to the labels of a scene graph, with the tables in
//! `assets/relations/`.
//!
//! The tables give the meaning of words in a vocabulary such as Visual Genome's. A [`Vocabulary`]
//! is the part of them that one graph has labels for, so another graph needs no other code.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::LazyLock,
};

use serde::Deserialize;

use super::grammar::{GRAMMAR, lemma};

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let predicates = include_str!("../../../../assets/relations/predicates.toml");
    let objects = include_str!("../../../../assets/relations/objects.toml");
    Tables::parse(predicates, objects).expect("a test parses the same texts")
});

/// Labels of one scene graph and the words of prompts that map to them.
#[derive(Debug)]
pub struct Vocabulary {
    predicates: HashMap<String, usize>,
    meanings: HashMap<String, Predicates>,
    worn: Option<Predicates>,
    worn_heads: HashSet<String>,
    classes: HashMap<String, usize>,
    synonyms: HashMap<String, Vec<usize>>,
    person: Vec<usize>,
    least_cosine: f64,
}

/// Predicates of a graph that count as a predicate of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicates {
    /// Their indices in the graph's labels, at least one.
    pub places: Vec<usize>,
    /// True if the graph has no close predicate: for fighting, only against, with or near.
    pub approximate: bool,
}

impl Vocabulary {
    /// Creates the vocabulary of a graph with these labels, from the tables that share the most
    /// words with them.
    #[must_use]
    pub fn of(classes: &[String], predicates: &[String]) -> Self {
        let classes = places(classes);
        let predicates = places(predicates);
        let known = |names: &[String], of: &HashMap<String, usize>| -> Vec<usize> {
            names.iter().filter_map(|name| of.get(name).copied()).collect()
        };
        let meaning = |names: &[String], approximate| {
            let places = known(names, &predicates);
            (!places.is_empty()).then_some(Predicates { places, approximate })
        };
        let table = TABLES
            .predicates
            .tables
            .values()
            .max_by_key(|table| known(&table.predicates, &predicates).len());
        let own = predicates.iter();
        let mut meanings: HashMap<_, _> = own
            .map(|(name, &place)| {
                (name.clone(), Predicates { places: vec![place], approximate: false })
            })
            .collect();
        for Meaning { words, means, approximate } in table.iter().flat_map(|table| &table.meaning) {
            if let Some(means) = meaning(means, *approximate) {
                meanings.extend(words.iter().map(|word| (word.clone(), means.clone())));
            }
        }
        let worn = table.and_then(|table| meaning(&table.worn, false));
        let table =
            TABLES.objects.values().max_by_key(|table| known(&table.classes, &classes).len());
        let synonyms = table.iter().flat_map(|table| &table.synonyms);
        let synonyms = synonyms
            .map(|(word, names)| (lemma(word), known(names, &classes)))
            .filter(|(_, places)| !places.is_empty())
            .collect();
        let heads = table.iter().flat_map(|table| &table.worn.heads);
        let worn_heads = heads.map(|word| lemma(word)).collect();
        let person = table.map_or_else(Vec::new, |table| known(&table.person, &classes));
        let least_cosine = TABLES.predicates.nearest.least_cosine;
        Self { predicates, meanings, worn, worn_heads, classes, synonyms, person, least_cosine }
    }

    /// Returns the classes that count as the person of a prompt, as indices of the labels.
    #[must_use]
    pub fn person(&self) -> &[usize] {
        &self.person
    }

    /// Returns the smallest cosine of text embeddings at which an unknown predicate is mapped to
    /// one of the graph's.
    #[must_use]
    pub fn least_cosine(&self) -> f64 {
        self.least_cosine
    }

    /// Finds the predicates that count as this predicate: by all its words, then by its verb, then
    /// by its preposition.
    #[must_use]
    pub fn predicate(&self, predicate: &str, object: &str) -> Option<Predicates> {
        let predicate = normal(predicate);
        if predicate == "in" && self.worn.is_some() && self.is_worn(object) {
            return self.worn.clone();
        }
        let (first, rest) = predicate.split_once(' ').unwrap_or((&predicate, ""));
        let found = |words: &str| self.meanings.get(words).cloned();
        found(&predicate)
            .or_else(|| found(first).filter(|_| !GRAMMAR.prepositions.contains(first)))
            .or_else(|| {
                found(rest).map(|preposition| Predicates { approximate: true, ..preposition })
            })
    }

    /// Finds the predicate of the graph with exactly this name.
    #[must_use]
    pub fn exact(&self, predicate: &str) -> Option<usize> {
        self.predicates.get(&normal(predicate)).copied()
    }

    /// Finds the classes that count as an object, as indices of the labels: by all its words, then
    /// by its head noun. Often there are none: objects in prompts are an open vocabulary.
    #[must_use]
    pub fn object(&self, object: &str) -> Vec<usize> {
        let words = lemmas(object);
        let places = |word: &str| {
            let own = || self.classes.get(word).map(|place| vec![*place]);
            self.synonyms.get(word).cloned().or_else(own)
        };
        places(&words.join(" ")).or_else(|| places(super::head(&words))).unwrap_or_default()
    }

    fn is_worn(&self, object: &str) -> bool {
        self.worn_heads.contains(super::head(&lemmas(object)))
    }
}

fn normal(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

fn lemmas(text: &str) -> Vec<String> {
    text.to_lowercase().split_whitespace().map(lemma).collect()
}

/// Maps names to their indices.
fn places(names: &[String]) -> HashMap<String, usize> {
    names.iter().enumerate().map(|(place, name)| (normal(name), place)).collect()
}

/// Contents of the files in `assets/relations/`.
#[derive(Debug)]
struct Tables {
    predicates: PredicateFile,
    objects: BTreeMap<String, ObjectTable>,
}

impl Tables {
    fn parse(predicates: &str, objects: &str) -> Result<Self, toml::de::Error> {
        Ok(Self { predicates: toml::from_str(predicates)?, objects: toml::from_str(objects)? })
    }
}

#[derive(Debug, Deserialize)]
struct PredicateFile {
    nearest: Nearest,
    /// Tables by the name of their vocabulary.
    #[serde(flatten)]
    tables: BTreeMap<String, PredicateTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nearest {
    least_cosine: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PredicateTable {
    predicates: Vec<String>,
    worn: Vec<String>,
    meaning: Vec<Meaning>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meaning {
    words: Vec<String>,
    means: Vec<String>,
    #[serde(default)]
    approximate: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectTable {
    classes: Vec<String>,
    person: Vec<String>,
    synonyms: HashMap<String, Vec<String>>,
    worn: Worn,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Worn {
    heads: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::{TABLES, Vocabulary, lemma, normal};

    /// The labels of Visual Genome: 150 classes and 50 predicates.
    fn visual_genome() -> (Vec<String>, Vec<String>) {
        (
            TABLES.objects["vg150"].classes.clone(),
            TABLES.predicates.tables["vg50"].predicates.clone(),
        )
    }

    fn vocabulary() -> Vocabulary {
        let (classes, predicates) = visual_genome();
        Vocabulary::of(&classes, &predicates)
    }

    #[test]
    fn bundled_tables_use_only_words_of_their_vocabulary_and_each_word_once() {
        let (classes, predicates) = visual_genome();
        assert_eq!((predicates.len(), classes.len()), (50, 150));
        for (name, table) in &TABLES.predicates.tables {
            let mut seen = std::collections::HashSet::new();
            for meaning in &table.meaning {
                assert!(!meaning.means.is_empty(), "{name}: {:?}", meaning.words);
                for class in &meaning.means {
                    assert!(table.predicates.contains(class), "{name}: {class}");
                }
                for word in &meaning.words {
                    assert!(seen.insert(word), "{name}: {word} twice");
                    assert_eq!(*word, normal(word));
                }
            }
            assert!(table.worn.iter().all(|class| table.predicates.contains(class)));
        }
        for (name, table) in &TABLES.objects {
            for (word, names) in &table.synonyms {
                assert!(
                    !names.is_empty() && names.iter().all(|class| table.classes.contains(class)),
                    "{name}: {word}"
                );
                // In a map of lemmas, two spellings of one word would overwrite each other.
                let same = table.synonyms.keys().filter(|other| lemma(other) == lemma(word));
                assert!(
                    same.into_iter().all(|other| table.synonyms[other] == *names),
                    "{name}: {word}"
                );
            }
            assert!(table.person.iter().all(|class| table.classes.contains(class)));
        }
        assert!((0.0..=1.0).contains(&vocabulary().least_cosine()));
    }

    #[test]
    fn predicates_are_found_whole_then_by_verb_then_by_preposition() {
        let (_, names) = visual_genome();
        let vocabulary = vocabulary();
        let seen_as = |predicate, object| {
            vocabulary.predicate(predicate, object).map(|found| {
                let names: Vec<&str> =
                    found.places.iter().map(|&place| names[place].as_str()).collect();
                (names.join(" | "), found.approximate)
            })
        };
        assert_eq!(seen_as("sitting on", "sofa"), Some(("sitting on".into(), false)));
        assert_eq!(seen_as(" Sitting  ON ", "sofa"), Some(("sitting on".into(), false)));
        assert_eq!(seen_as("gazing upon", "space"), Some(("looking at | watching".into(), false)));
        assert_eq!(seen_as("whistling at", "bird"), Some(("at | in | near".into(), true)));
        assert_eq!(seen_as("hugging", "bear"), Some(("against | with | near".into(), true)));
        assert_eq!(seen_as("next to", "shark"), Some(("near".into(), false)));
        assert_eq!(seen_as("in", "Cowboy Boots"), Some(("wearing | wears | in".into(), false)));
        assert_eq!(seen_as("in", "garden"), Some(("in".into(), false)));
        assert_eq!(seen_as("whistling", "song"), None);
        assert_eq!(seen_as("", "song"), None);
    }

    #[test]
    fn only_the_word_itself_is_exact() {
        let vocabulary = vocabulary();
        assert_eq!(vocabulary.exact("Riding "), Some(37));
        assert_eq!(vocabulary.exact("surfing"), None);
        assert_eq!(vocabulary.exact("next to"), None);
    }

    #[test]
    fn objects_are_found_by_their_words_then_by_their_head() {
        let (names, _) = visual_genome();
        let vocabulary = vocabulary();
        let classes = |object| {
            let places = vocabulary.object(object);
            places.iter().map(|&place| names[place].as_str()).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(classes("Bicycles"), "bike");
        assert_eq!(classes("cup of coffee"), "cup");
        assert_eq!(classes("coffee"), "cup");
        assert_eq!(classes("vintage car"), "car | vehicle");
        assert_eq!(classes("blue jeans"), "jean | pant");
        assert_eq!(classes("Saturn"), "");
    }

    #[test]
    fn a_graph_with_fewer_labels_maps_only_to_those() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let vocabulary =
            Vocabulary::of(&list(&["woman", "bike", "unicorn"]), &list(&["on", "Juggling"]));
        let places = |predicate| vocabulary.predicate(predicate, "bike").map(|found| found.places);
        assert_eq!(places("riding"), Some(vec![0]), "the graph has only on");
        assert_eq!(places("juggling"), Some(vec![1]), "a label that no table lists");
        assert_eq!(places("eating"), None);
        assert_eq!(vocabulary.person(), [0]);
        assert_eq!(
            (vocabulary.object("bicycle"), vocabulary.object("unicorns")),
            (vec![1], vec![2])
        );
    }
}
