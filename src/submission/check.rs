//! Differences within a bundle, and with a folder of images or a dataset.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::archive::Bundle;
use super::facts::{BundleSample, totals};
use super::labels::{labels, shown};
use crate::card::{CollectedSettings, GeneratorSettings};
use crate::content::ContentHash;
use crate::dataset::{Dataset, Prompt};
use crate::label;
use crate::metrics;
use crate::scoring::{Metadata, content};
use crate::toolkit::format_prompt;
use crate::verify::Case;

/// A program that adds in another order gets a mean that differs in the last digits.
const SAME_MEAN: f64 = 1e-12;

/// Rounding may take a score beyond the end of its range.
const BEYOND: f64 = 1e-6;

/// The metric over a whole run. It concerns only the samples with labels of the person, and a part
/// of the samples cannot reproduce it.
pub const WHOLE_RUN: &str = "aps";

/// Returns the differences within a bundle: names, counts, hashes, scores, means, settings, card.
#[must_use]
pub fn within(bundle: &Bundle) -> Vec<String> {
    let Bundle { facts, samples, .. } = bundle;
    let mut differences = Vec::new();
    let named = [("method", &facts.method), ("run", &facts.run), ("pack", &facts.pack.name)];
    for (what, name) in named {
        if label::clean(name).as_ref() != Ok(name) {
            differences.push(format!("the {what} of submission.json is not a name"));
        }
    }
    if !is_hash(&facts.pack.digest) {
        differences.push("the pack's digest in submission.json is not a hash".to_owned());
    }
    differences.extend(labels(bundle));
    if let Some(card) = &facts.declarations.card {
        match card.clone().clean() {
            Ok(clean) if clean == *card => {}
            Ok(_) => differences.push("the card is not in the form that is stored".to_owned()),
            Err(problem) => differences.push(format!("the card is invalid: {problem}")),
        }
    }
    if facts.samples != samples.len() as u64 {
        differences.push(format!(
            "submission.json counts {} samples, samples.jsonl has {}",
            facts.samples,
            samples.len()
        ));
    }
    for pair in samples.windows(2).filter(|pair| pair[0].name >= pair[1].name) {
        let (one, other) = (shown(&pair[0].name), shown(&pair[1].name));
        differences.push(format!("samples are not sorted, or repeated: {one} before {other}"));
    }
    for sample in samples {
        differences.extend(of_sample(sample));
    }
    let computed = totals(samples);
    let metrics: BTreeSet<&String> = computed.keys().chain(facts.metrics.keys()).collect();
    for metric in metrics {
        let (Some(here), Some(said)) = (computed.get(metric), facts.metrics.get(metric)) else {
            differences.push(format!("{} is in only one of the tables", shown(metric)));
            continue;
        };
        if (here.n, here.nulls) != (said.n, said.nulls) {
            differences.push(format!(
                "{metric}: submission.json counts {} numbers and {} nulls, the samples have {} and {}",
                said.n, said.nulls, here.n, here.nulls
            ));
        }
        let missing = (samples.len() as u64).saturating_sub(here.n + here.nulls);
        if missing > 0 && metric != WHOLE_RUN {
            differences.push(format!(
                "{}: {missing} of {} samples have neither a number nor a reason",
                shown(metric),
                samples.len()
            ));
        }
        let same = match (here.mean, said.mean) {
            (Some(here), Some(said)) => (here - said).abs() <= SAME_MEAN * here.abs().max(1.0),
            (here, said) => here == said,
        };
        if !same {
            let number =
                |mean: Option<f64>| mean.map_or("null".to_owned(), |mean| mean.to_string());
            differences.push(format!(
                "{metric}: the mean is {} in submission.json, and {} over the samples",
                number(said.mean),
                number(here.mean)
            ));
        }
    }
    if !facts.metric_versions.keys().eq(computed.keys()) {
        differences.push("metric_versions does not list the metrics of the samples".to_owned());
    }
    let settings = CollectedSettings::of(samples.iter().map(|sample| &sample.metadata.settings));
    if settings != facts.image_settings {
        differences.push(
            "image_settings of submission.json are not those of the samples' settings".to_owned(),
        );
    }
    differences
}

fn of_sample(sample: &BundleSample) -> Vec<String> {
    let name = shown(&sample.name);
    let mut differences = Vec::new();
    if label::clean(&sample.name).as_ref() != Ok(&sample.name) {
        differences.push(format!("sample {name}: this is not a name"));
    }
    let hashes = [&sample.content, &sample.image].into_iter().chain(&sample.prompt);
    let mut hashes = hashes.chain(&sample.references).chain(&sample.auxiliary);
    if !hashes.all(|hash| is_hash(hash)) {
        differences.push(format!("sample {name}: not all hashes have 64 hexadecimal digits"));
    }
    for (metric, score) in &sample.scores {
        let is_one = match (score.value, &score.reason) {
            (Some(value), None) => value.is_finite(),
            (None, Some(reason)) => label::clean_within(reason, 100).is_ok(),
            _ => false,
        };
        let range = metrics::find(metric).map_or((None, None), |metric| metric.range);
        let is_outside = |value: f64| {
            range.0.is_some_and(|low| value < low - BEYOND)
                || range.1.is_some_and(|high| value > high + BEYOND)
        };
        if let Some(value) = score.value.filter(|value| is_outside(*value)) {
            differences.push(format!("sample {name}: {value} is not a possible {metric}"));
        }
        if !is_one || label::check_visible(metric).is_err() {
            let metric = shown(metric);
            differences.push(format!(
                "sample {name}: {metric} must be a finite number, or null with a reason"
            ));
        }
    }
    differences
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Returns the differences with a folder of images: every file, prompt and setting.
///
/// Each sample is compared with the case of its name. `hash` reads and hashes a file.
pub fn folder(
    bundle: &Bundle,
    cases: &[Case],
    mut hash: impl FnMut(&Path) -> std::io::Result<ContentHash>,
) -> Vec<String> {
    let by_name: HashMap<&str, &Case> = cases.iter().map(|case| (&*case.name, case)).collect();
    let known: BTreeSet<&str> = bundle.samples.iter().map(|sample| &*sample.name).collect();
    let mut differences = Vec::new();
    // Photos are shared by many samples.
    let mut photos: HashMap<PathBuf, ContentHash> = HashMap::new();
    for sample in &bundle.samples {
        let name = shown(&sample.name);
        let mut differs = |what: String| differences.push(format!("sample {name}: {what}"));
        let Some(case) = by_name.get(&*sample.name) else {
            differs("the folder has no such image".to_owned());
            continue;
        };
        let image = match hash(&case.image) {
            Ok(hash) => hash,
            Err(error) => {
                differs(format!("{} cannot be read: {error}", case.image.display()));
                continue;
            }
        };
        if image.to_hex() != sample.image {
            differs(format!("the image {} has another hash", case.image.display()));
        }
        let prompt = case.prompt.as_ref().map(|text| ContentHash::of(text.as_bytes()).to_hex());
        if prompt != sample.prompt {
            differs("the prompt has another hash".to_owned());
        }
        let mut of = |paths: &[PathBuf]| {
            let each = paths.iter().map(|path| match photos.get(path) {
                Some(known) => Ok(*known),
                None => hash(path).inspect(|found| {
                    photos.insert(path.clone(), *found);
                }),
            });
            each.collect::<Result<Vec<ContentHash>, _>>()
        };
        let (references, auxiliary) = match (of(&case.references), of(&case.auxiliary)) {
            (Ok(references), Ok(auxiliary)) => (references, auxiliary),
            (Err(error), _) | (_, Err(error)) => {
                differs(format!("a photo cannot be read: {error}"));
                continue;
            }
        };
        let hex = |of: &[ContentHash]| of.iter().map(ContentHash::to_hex).collect::<Vec<_>>();
        if hex(&references) != sample.references {
            differs("the reference images have other hashes".to_owned());
        }
        if hex(&auxiliary) != sample.auxiliary {
            differs("the auxiliary images have other hashes".to_owned());
        }
        // A folder without labels of its own says nothing about those of the bundle.
        let labels = |of: &Metadata| Metadata {
            settings: GeneratorSettings::default(),
            dataset: None,
            ..of.clone()
        };
        let (own, said) = (labels(&case.metadata), labels(&sample.metadata));
        if own != Metadata::default() && own != said {
            differs("the labels of prompt or person differ".to_owned());
        }
        let together =
            content(image, case.prompt.as_deref(), &references, &auxiliary, &sample.metadata);
        if together.to_hex() != sample.content {
            differs("its inputs together have another hash: the metadata may differ".to_owned());
        }
        let settings = &case.metadata.settings;
        if !settings.is_empty() && *settings != sample.metadata.settings {
            differs("the settings differ from those of its JSON file".to_owned());
        }
    }
    let extra: Vec<&Case> = cases.iter().filter(|case| !known.contains(&*case.name)).collect();
    if let Some(first) = extra.first() {
        differences.push(format!(
            "the folder has {} images that the bundle leaves out, the first is {}",
            extra.len(),
            shown(&first.name)
        ));
    }
    differences
}

/// Returns the differences with a dataset: prompts that it does not have, labels that are not those
/// of the prompt, and prompts of it without a sample. Of each kind of prompt, a bundle must cover
/// all or none, and each prompt equally often.
#[must_use]
pub fn dataset(bundle: &Bundle, dataset: &Dataset) -> Vec<String> {
    let hash = |text: &str| {
        let text = format_prompt(text).unwrap_or_else(|_| text.to_owned());
        ContentHash::of(text.as_bytes()).to_hex()
    };
    // By hash of the text, and the identity as far as a sample names it.
    let mut wanted: BTreeMap<&str, BTreeSet<(String, &str)>> = BTreeMap::new();
    let mut prompts: HashMap<(String, &str), &Prompt> = HashMap::new();
    let mut texts: BTreeSet<String> = BTreeSet::new();
    for prompt in &dataset.prompts {
        let kind = prompt.kind.as_deref().unwrap_or_default();
        let key = (hash(&prompt.text), &*prompt.identity);
        texts.insert(key.0.clone());
        wanted.entry(kind).or_default().insert(key.clone());
        prompts.insert(key, prompt);
    }
    let mut differences = Vec::new();
    let mut covered: BTreeMap<&str, BTreeMap<(String, &str), usize>> = BTreeMap::new();
    for sample in &bundle.samples {
        let text = sample.prompt.clone().unwrap_or_default();
        let identity = sample.metadata.identity.as_deref().unwrap_or_default();
        match prompts.get_key_value(&(text.clone(), identity)) {
            Some((key, prompt)) => {
                let kind = prompt.kind.as_deref().unwrap_or_default();
                *covered.entry(kind).or_default().entry(key.clone()).or_default() += 1;
                if let Some(what) = other_labels(prompt, &sample.metadata) {
                    let name = shown(&sample.name);
                    differences.push(format!("sample {name}: its {what} differ from the prompt's"));
                }
            }
            None if texts.contains(&text) => differences.push(format!(
                "sample {}: the dataset has its prompt, but not for this person",
                shown(&sample.name)
            )),
            None => differences
                .push(format!("sample {}: its prompt is not in the dataset", shown(&sample.name))),
        }
    }
    for (kind, found) in &covered {
        let all = &wanted[kind];
        let missing: Vec<&(String, &str)> =
            all.iter().filter(|key| !found.contains_key(key)).collect();
        let kind = if kind.is_empty() { String::new() } else { format!(" of kind {kind}") };
        let (least, most) = (found.values().min(), found.values().max());
        if let (Some(least), Some(most)) = (least, most)
            && least != most
        {
            differences.push(format!(
                "some prompts{kind} have {most} samples, others {least}: each must have equally many"
            ));
        }
        if let Some((_, identity)) = missing.first() {
            differences.push(format!(
                "{} of {} prompts{kind} have no sample, the first is of the person {}",
                missing.len(),
                all.len(),
                shown(identity)
            ));
        }
    }
    differences
}

/// Returns which labels of a sample are not those of its prompt, as far as the dataset has them.
fn other_labels(prompt: &Prompt, metadata: &Metadata) -> Option<&'static str> {
    let kind = prompt.kind.as_ref();
    if kind.is_some() && metadata.prompt_kind.as_ref() != kind {
        return Some("kind");
    }
    let lists = [
        ("objects", &prompt.detectables, &metadata.detectables),
        ("categories", &prompt.categories, &metadata.categories),
    ];
    let list = lists.into_iter().find(|(_, own, said)| !own.is_empty() && own != said);
    let is_other = !prompt.relations.is_empty() && prompt.relations != metadata.relations;
    list.map(|(what, _, _)| what).or(is_other.then_some("relations"))
}
