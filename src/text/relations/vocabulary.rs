//! What a prompt's predicates and objects are called by a scene-graph model, from the tables in `assets/relations/`.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use serde::Deserialize;

use super::grammar::{GRAMMAR, lemma};

static VISUAL_GENOME: LazyLock<Vocabulary> = LazyLock::new(|| {
    let predicates = include_str!("../../../assets/relations/predicates.toml");
    let objects = include_str!("../../../assets/relations/objects.toml");
    Vocabulary::parse(predicates, objects).expect("a test parses the same texts")
});

/// The words of one scene-graph model and what they stand for in prompts.
#[derive(Debug)]
pub struct Vocabulary {
    predicates: Vec<String>,
    meanings: HashMap<String, (Vec<String>, bool)>,
    worn: Vec<String>,
    worn_heads: HashSet<String>,
    classes: HashSet<String>,
    synonyms: HashMap<String, Vec<String>>,
    person: Vec<String>,
}

/// The predicates of a model that a prompt's predicate may be seen as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateClasses<'a> {
    /// Names in the model's vocabulary, at least one.
    pub classes: &'a [String],
    /// Whether the model has nothing close: fighting is only seen as being against, with or near.
    pub approximate: bool,
}

impl Vocabulary {
    /// Gives the 50 predicates and 150 classes of Visual Genome that EGTR and `RelTR` are trained on.
    #[must_use]
    pub fn visual_genome() -> &'static Self {
        &VISUAL_GENOME
    }

    fn parse(predicates: &str, objects: &str) -> Result<Self, toml::de::Error> {
        let predicates: PredicateFile = toml::from_str(predicates)?;
        let objects: ObjectFile = toml::from_str(objects)?;
        let PredicateTable { predicates, worn, meaning } = predicates.vg50;
        let own = predicates.iter().map(|name| (name.clone(), (vec![name.clone()], false)));
        let mut meanings: HashMap<_, _> = own.collect();
        for Meaning { words, means, approximate } in meaning {
            meanings.extend(words.into_iter().map(|word| (word, (means.clone(), approximate))));
        }
        let ObjectTable { classes, person, synonyms, worn: Worn { heads } } = objects.vg150;
        Ok(Self {
            predicates,
            meanings,
            worn,
            worn_heads: heads.iter().map(|word| lemma(word)).collect(),
            classes: classes.into_iter().collect(),
            synonyms: synonyms.into_iter().map(|(word, classes)| (lemma(&word), classes)).collect(),
            person,
        })
    }

    /// Gives the model's predicates in their order.
    #[must_use]
    pub fn predicates(&self) -> &[String] {
        &self.predicates
    }

    /// Gives the classes that the person of a prompt may be seen as.
    #[must_use]
    pub fn person(&self) -> &[String] {
        &self.person
    }

    /// Finds what a predicate may be seen as: by all its words, then its verb, then its preposition. None if unmapped.
    #[must_use]
    pub fn predicate(&self, predicate: &str, object: &str) -> Option<PredicateClasses<'_>> {
        let predicate = predicate.trim().to_lowercase();
        if predicate == "in" && self.is_worn(object) {
            return Some(PredicateClasses { classes: &self.worn, approximate: false });
        }
        let (first, rest) = predicate.split_once(' ').unwrap_or((&predicate, ""));
        let found = |words: &str| self.meanings.get(words);
        let exact =
            found(&predicate).or_else(|| found(first).filter(|_| !GRAMMAR.prepositions.contains(first)));
        let by_preposition =
            || found(rest).map(|(classes, _)| PredicateClasses { classes, approximate: true });
        exact
            .map(|(classes, approximate)| PredicateClasses { classes, approximate: *approximate })
            .or_else(by_preposition)
    }

    /// Finds the classes that an object may be seen as: by all its words, then by the noun they end in. Often none: a
    /// prompt's objects are an open vocabulary.
    #[must_use]
    pub fn object(&self, object: &str) -> Vec<String> {
        let words: Vec<String> = object.to_lowercase().split_whitespace().map(lemma).collect();
        let classes = |word: &str| {
            let own = || self.classes.contains(word).then(|| vec![word.to_owned()]);
            self.synonyms.get(word).cloned().or_else(own)
        };
        classes(&words.join(" ")).or_else(|| classes(super::head(&words))).unwrap_or_default()
    }

    fn is_worn(&self, object: &str) -> bool {
        let words: Vec<String> = object.to_lowercase().split_whitespace().map(lemma).collect();
        self.worn_heads.contains(super::head(&words))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredicateFile {
    vg50: PredicateTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredicateTable {
    predicates: Vec<String>,
    worn: Vec<String>,
    meaning: Vec<Meaning>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Meaning {
    words: Vec<String>,
    means: Vec<String>,
    #[serde(default)]
    approximate: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectFile {
    vg150: ObjectTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectTable {
    classes: Vec<String>,
    person: Vec<String>,
    synonyms: HashMap<String, Vec<String>>,
    worn: Worn,
}

#[derive(Deserialize)]
struct Worn {
    heads: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::Vocabulary;

    #[test]
    fn tables_that_ship_name_only_words_of_the_model() {
        let vocabulary = Vocabulary::visual_genome();
        assert_eq!((vocabulary.predicates.len(), vocabulary.classes.len()), (50, 150));
        for (word, (classes, _)) in &vocabulary.meanings {
            assert!(
                !classes.is_empty() && classes.iter().all(|class| vocabulary.predicates.contains(class)),
                "{word}"
            );
        }
        for (word, classes) in &vocabulary.synonyms {
            assert!(
                !classes.is_empty() && classes.iter().all(|class| vocabulary.classes.contains(class)),
                "{word}"
            );
        }
        assert!(vocabulary.person.iter().all(|class| vocabulary.classes.contains(class)));
        assert!(vocabulary.worn.iter().all(|class| vocabulary.predicates.contains(class)));
    }

    #[test]
    fn predicates_are_found_whole_then_by_verb_then_by_preposition() {
        let classes = |predicate, object| {
            Vocabulary::visual_genome()
                .predicate(predicate, object)
                .map(|found| (found.classes.join(" | "), found.approximate))
        };
        assert_eq!(classes("sitting on", "sofa"), Some(("sitting on".into(), false)));
        assert_eq!(classes("gazing upon", "space"), Some(("looking at | watching".into(), false)));
        assert_eq!(classes("whistling at", "bird"), Some(("at | in | near".into(), true)));
        assert_eq!(classes("hugging", "bear"), Some(("against | with | near".into(), true)));
        assert_eq!(classes("next to", "shark"), Some(("near".into(), false)));
        assert_eq!(classes("in", "Cowboy Boots"), Some(("wearing | wears | in".into(), false)));
        assert_eq!(classes("in", "garden"), Some(("in".into(), false)));
        assert_eq!(classes("whistling", "song"), None);
    }

    #[test]
    fn objects_are_found_by_their_words_then_by_their_head() {
        let classes = |object| Vocabulary::visual_genome().object(object).join(" | ");
        assert_eq!(classes("Bicycles"), "bike");
        assert_eq!(classes("cup of coffee"), "cup");
        assert_eq!(classes("coffee"), "cup");
        assert_eq!(classes("vintage car"), "car | vehicle");
        assert_eq!(classes("blue jeans"), "jean | pant");
        assert_eq!(classes("Saturn"), "");
    }
}
