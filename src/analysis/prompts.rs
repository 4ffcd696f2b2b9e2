//! Statistics of a dataset's prompts: their words, tokens, parts of speech and objects, for each
//! prompt and for each person.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use stellar_text::relations::parts;
use utoipa::ToSchema;

use super::{
    published::{names_dataset, published},
    quantity::Quantity,
};
use crate::content::ContentHash;

/// Kinds of prompts that have statistics of their own: those with most prompts.
pub const MOST_KINDS: usize = 100;

/// Texts whose words are remembered.
const REMEMBERED: usize = 4_096;

/// Different words, verbs, prepositions and objects that are counted, over all kinds together.
const MOST_DISTINCT: usize = 2_000_000;

/// What stands for the person where a prompt has `{}`.
const PERSON: &str = "a person";

/// Sum and spread of a quantity over prompts or people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spread {
    /// The sum.
    pub total: u64,
    /// The mean.
    pub mean: f64,
    /// The median: the mean of the two in the middle if the number is even.
    pub median: f64,
    /// The largest value.
    pub max: u64,
}

impl Spread {
    /// Returns the spread of at least one value.
    fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let (n, max) = (values.len(), *values.last()?);
        let total: u64 = values.iter().sum();
        let median = f64::midpoint(values[(n - 1) / 2] as f64, values[n / 2] as f64);
        Some(Self { total, mean: total as f64 / n as f64, median, max })
    }
}

/// One quantity of the prompts of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuantityStatistics {
    /// The quantity.
    pub quantity: Quantity,
    /// Number of different ones, without regard to case. Null for tokens, and if there are too many
    /// to count.
    pub distinct: Option<usize>,
    /// Spread over prompts.
    pub per_prompt: Spread,
    /// Spread over people, of the sum over each person's prompts.
    pub per_person: Spread,
}

/// Statistics of the prompts of one kind, or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KindStatistics {
    /// The kind of the prompts; null for all prompts together.
    pub kind: Option<String>,
    /// Number of prompts.
    pub prompts: usize,
    /// Number of different texts, with `{}` for the person.
    pub texts: usize,
    /// Number of people that the prompts are for.
    pub people: usize,
    /// Spread of the number of prompts over people.
    pub prompts_per_person: Spread,
    /// The quantities. Tokens are left out if no tokenizer is known.
    pub quantities: Vec<QuantityStatistics>,
}

/// A figure that the authors of a dataset published, beside the one found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedFigure {
    /// Kind of the prompts.
    pub kind: String,
    /// The quantity whose number of different ones was published.
    pub quantity: Quantity,
    /// The published number.
    pub published: usize,
    /// The number found; null if no prompt is of this kind.
    pub found: Option<usize>,
}

/// A prompt as far as statistics need it.
#[derive(Debug, Clone, Copy)]
pub struct PromptText<'a> {
    /// The person that the prompt is for.
    pub identity: &'a str,
    /// The text, with `{}` for the person.
    pub text: &'a str,
    /// The kind of the prompt.
    pub kind: Option<&'a str>,
    /// The objects that the prompt names.
    pub detectables: &'a [String],
}

/// Counts the tokens of a text; `None` if it has none.
type CountTokens<'a> = Box<dyn Fn(&str) -> Option<usize> + Send + 'a>;

/// Counts prompts one after the other. It keeps hashes of the texts and words, not these.
pub struct PromptCounter<'a> {
    tokens: CountTokens<'a>,
    /// Texts that were read lately.
    texts: HashMap<ContentHash, Text>,
    /// Prompts by kind, and all of them under `None`.
    kinds: BTreeMap<Option<String>, Kind>,
    /// Different words and objects that may still be counted.
    left: usize,
}

/// What a text has, apart from its detectables.
#[derive(Clone)]
struct Text {
    words: Vec<String>,
    tokens: Option<usize>,
    verbs: Vec<String>,
    prepositions: Vec<String>,
}

#[derive(Default)]
struct Kind {
    texts: HashSet<ContentHash>,
    people: HashMap<ContentHash, Person>,
    prompts: usize,
    values: BTreeMap<Quantity, Vec<u32>>,
    distinct: BTreeMap<Quantity, Distinct>,
}

/// Different words or objects.
#[derive(Default)]
struct Distinct {
    hashes: HashSet<ContentHash>,
    /// Whether some were not counted.
    is_cut: bool,
}

#[derive(Default)]
struct Person {
    prompts: u64,
    /// Sums of the quantities, in the order of [`Quantity::ALL`].
    sums: [u64; Quantity::ALL.len()],
}

/// Returns the kinds with most prompts, at most [`MOST_KINDS`].
#[must_use]
pub fn largest_kinds<'a>(kinds: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(MOST_KINDS).map(|(kind, _)| kind.to_owned()).collect()
}

impl<'a> PromptCounter<'a> {
    /// Begins to count all prompts together, and those of each of these kinds. `tokens` returns the
    /// number of a prompt's tokens without start and end, if a tokenizer is known.
    #[must_use]
    pub fn new(
        kinds: impl IntoIterator<Item = String>,
        tokens: impl Fn(&str) -> Option<usize> + Send + 'a,
    ) -> Self {
        let kinds = [None].into_iter().chain(kinds.into_iter().take(MOST_KINDS).map(Some));
        Self {
            tokens: Box::new(tokens),
            texts: HashMap::new(),
            kinds: kinds.map(|kind| (kind, Kind::default())).collect(),
            left: MOST_DISTINCT,
        }
    }

    /// Counts a prompt.
    pub fn add(&mut self, prompt: &PromptText<'_>) {
        let hash = ContentHash::of(prompt.text.as_bytes());
        if !self.texts.contains_key(&hash) {
            if self.texts.len() == REMEMBERED {
                self.texts.clear();
            }
            let read = self.read(prompt.text);
            self.texts.insert(hash, read);
        }
        let text = &self.texts[&hash];
        let all = [None, prompt.kind.map(str::to_owned)];
        let kinds = if prompt.kind.is_some() { &all[..] } else { &all[..1] };
        for kind in kinds {
            if let Some(of) = self.kinds.get_mut(kind) {
                of.add(prompt, hash, text, &mut self.left);
            }
        }
    }

    fn read(&self, text: &str) -> Text {
        let whole = text.replace("{}", PERSON);
        let is_word = |word: &&str| word.chars().any(char::is_alphanumeric);
        let bare =
            |word: &str| word.trim_matches(|char: char| !char.is_alphanumeric()).to_lowercase();
        let of = parts(text);
        Text {
            words: whole.split_whitespace().filter(is_word).map(bare).collect(),
            tokens: (self.tokens)(&whole),
            verbs: of.verbs,
            prepositions: of.prepositions,
        }
    }

    /// Returns the statistics of all prompts, and of each kind. There are none without prompts.
    #[must_use]
    pub fn finish(self) -> Vec<KindStatistics> {
        self.kinds.into_iter().filter_map(|(kind, of)| of.statistics(kind)).collect()
    }
}

impl Kind {
    fn add(&mut self, prompt: &PromptText<'_>, hash: ContentHash, text: &Text, left: &mut usize) {
        self.prompts += 1;
        self.texts.insert(hash);
        let person = ContentHash::of(prompt.identity.as_bytes());
        let person = self.people.entry(person).or_default();
        person.prompts += 1;
        let lists: [(Quantity, &[String]); 4] = [
            (Quantity::Words, &text.words),
            (Quantity::Verbs, &text.verbs),
            (Quantity::Prepositions, &text.prepositions),
            (Quantity::Detectables, prompt.detectables),
        ];
        for (quantity, list) in lists {
            let distinct = self.distinct.entry(quantity).or_default();
            for item in list {
                let item = ContentHash::of(item.to_lowercase().as_bytes());
                if distinct.hashes.contains(&item) {
                    continue;
                }
                distinct.is_cut |= *left == 0;
                if *left > 0 {
                    *left -= 1;
                    distinct.hashes.insert(item);
                }
            }
        }
        let counts = lists.map(|(quantity, list)| (quantity, list.len()));
        let tokens = text.tokens.map(|count| (Quantity::Tokens, count));
        for (quantity, count) in counts.into_iter().chain(tokens) {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.values.entry(quantity).or_default().push(count);
            person.sums[quantity as usize] += u64::from(count);
        }
    }

    fn statistics(mut self, kind: Option<String>) -> Option<KindStatistics> {
        let people = self.people.values();
        let prompts_per_person = Spread::of(people.map(|person| person.prompts).collect())?;
        let quantities = Quantity::ALL.into_iter().filter_map(|quantity| {
            let values = self.values.remove(&quantity)?;
            let per_prompt = Spread::of(values.into_iter().map(u64::from).collect())?;
            let sums = self.people.values().map(|of| of.sums[quantity as usize]);
            let per_person = Spread::of(sums.collect())?;
            let distinct = self.distinct.get(&quantity).filter(|of| !of.is_cut);
            let distinct = distinct.map(|of| of.hashes.len());
            Some(QuantityStatistics { quantity, distinct, per_prompt, per_person })
        });
        Some(KindStatistics {
            kind,
            prompts: self.prompts,
            texts: self.texts.len(),
            people: self.people.len(),
            prompts_per_person,
            quantities: quantities.collect(),
        })
    }
}

/// Returns the figures published for a dataset of this name, beside those found.
#[must_use]
pub fn published_figures(dataset: &str, found: &[KindStatistics]) -> Vec<PublishedFigure> {
    let of = published().datasets.iter().filter(|of| names_dataset(dataset, &of.dataset));
    let figures = of.flat_map(|of| {
        of.distinct.iter().map(move |(&quantity, &published)| {
            let of_kind = found.iter().find(|each| each.kind.as_deref() == Some(&*of.prompt_kind));
            let of_quantity = of_kind
                .and_then(|each| each.quantities.iter().find(|each| each.quantity == quantity));
            let found = of_quantity.and_then(|each| each.distinct);
            PublishedFigure { kind: of.prompt_kind.clone(), quantity, published, found }
        })
    });
    figures.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(prompts: &[(&str, &str, Option<&str>, &[&str])]) -> Vec<KindStatistics> {
        let kinds = largest_kinds(prompts.iter().filter_map(|(_, _, kind, _)| *kind));
        let mut counter = PromptCounter::new(kinds, |text| Some(text.len()));
        for (identity, text, kind, detectables) in prompts {
            let detectables: Vec<String> = detectables.iter().map(|&of| of.to_owned()).collect();
            counter.add(&PromptText { identity, text, kind: *kind, detectables: &detectables });
        }
        counter.finish()
    }

    fn of(found: &KindStatistics, quantity: Quantity) -> &QuantityStatistics {
        found.quantities.iter().find(|of| of.quantity == quantity).unwrap()
    }

    #[test]
    fn quantities_are_counted_by_prompt_and_by_person() {
        let found = count(&[
            ("0", "{} riding a horse in front of a barn", Some("T"), &["horse", "Barn"]),
            ("0", "{} Riding a bicycle, at night.", Some("T"), &["bicycle"]),
            ("1", "{} riding a horse in front of a barn", None, &["barn"]),
        ]);
        let [all, t] = &found[..] else { panic!("{found:?}") };
        assert_eq!((all.kind.as_deref(), t.kind.as_deref()), (None, Some("T")));
        assert_eq!((all.prompts, all.texts, all.people), (3, 2, 2));
        assert_eq!((t.prompts, t.texts, t.people), (2, 2, 1));
        let words = of(all, Quantity::Words);
        // "a person riding a horse in front of a barn", "a person riding a bicycle at night".
        assert_eq!(words.distinct, Some(11));
        let spread = |total, mean, median, max| Spread { total, mean, median, max };
        assert_eq!(words.per_prompt, spread(27, 9.0, 10.0, 10));
        assert_eq!(words.per_person, spread(27, 13.5, 13.5, 17));
        assert_eq!(of(all, Quantity::Verbs).distinct, Some(1));
        assert_eq!(of(all, Quantity::Prepositions).distinct, Some(2));
        let objects = of(all, Quantity::Detectables);
        assert_eq!((objects.distinct, objects.per_prompt.total), (Some(3), 4));
        assert_eq!(all.prompts_per_person, spread(3, 1.5, 1.5, 2));
    }

    #[test]
    fn without_prompts_or_tokenizer_there_is_no_number() {
        assert_eq!(PromptCounter::new(None, |_| None).finish(), []);
        let mut counter = PromptCounter::new(None, |_| None);
        counter.add(&PromptText { identity: "0", text: "{}", kind: None, detectables: &[] });
        let found = counter.finish();
        assert!(found[0].quantities.iter().all(|of| of.quantity != Quantity::Tokens));
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_counted_is_null() {
        let words: Vec<String> = (0..9_000).map(|at| format!("w{at}")).collect();
        let mut counter = PromptCounter::new(None, |_| None);
        counter.left = 12_000;
        for word in words.iter().chain(&words) {
            let text = format!("{{}} {word}");
            let about = PromptText { identity: word, text: &text, kind: None, detectables: &[] };
            counter.add(&about);
            assert!(counter.texts.len() <= REMEMBERED);
        }
        counter.left = 1;
        let more = ["a".to_owned(), "b".to_owned()];
        let about = PromptText { identity: "0", text: "{}", kind: Some("T"), detectables: &more };
        counter.add(&about);
        let found = counter.finish();
        // A kind that is not among the largest counts among all prompts only.
        let [all] = &found[..] else { panic!("{found:?}") };
        assert_eq!((all.prompts, all.texts, all.people), (18_001, 9_001, 9_001));
        assert_eq!(of(all, Quantity::Words).distinct, Some(9_002));
        assert_eq!(of(all, Quantity::Detectables).distinct, None);
        assert_eq!(of(all, Quantity::Detectables).per_prompt.total, 2);
    }

    #[test]
    fn the_kinds_with_most_prompts_have_statistics() {
        let all: Vec<String> = (0..MOST_KINDS + 20).map(|at| format!("{at:03}")).collect();
        let twice = all.iter().skip(20);
        let found = largest_kinds(all.iter().chain(twice).map(String::as_str));
        assert_eq!(found, all[20..].iter().cloned().collect());
    }

    #[test]
    fn published_figures_are_beside_those_found() {
        let found = count(&[("0", "{} riding a horse", Some("T"), &["horse"])]);
        let figures = published_figures("stellar", &found);
        let verbs = figures.iter().find(|of| of.quantity == Quantity::Verbs).unwrap();
        assert_eq!((verbs.published, verbs.found), (96, Some(1)));
        assert_eq!(published_figures("other", &found), []);
    }
}
