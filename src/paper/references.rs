//! Sources of metrics, models and data, for BibTeX.

use crate::metrics::Metric;

/// Every entry that a source of the registry names.
const ENTRIES: &str = include_str!("../../assets/paper/references.bib");

/// Papers of the photos and labels of Stellar: CelebAMask-HQ and CelebA-Dialog.
const PHOTOS: [&str; 2] = ["1907.11922", "2109.04425"];

/// The paper of Stellar's prompts and of the penalty.
const STELLAR: &str = "2312.06116";

/// Returns the entries of these metrics, and those of Stellar's data if they were used.
pub(super) fn references(metrics: &[&Metric], is_stellar: bool) -> String {
    let mut ids: Vec<&str> = metrics.iter().flat_map(|metric| ids(metric.source)).collect();
    ids.push(STELLAR);
    if is_stellar {
        ids.extend(PHOTOS);
    }
    let is_used =
        |entry: &&str| ids.iter().any(|id| entry.starts_with(&format!("@misc{{{},", key(id))));
    let entries: Vec<&str> = ENTRIES.split("\n\n").map(str::trim).filter(is_used).collect();
    format!(
        "% Sources of the metrics, models and data of this paper.\n\n{}\n",
        entries.join("\n\n")
    )
}

/// Returns the names of the works in a source of the registry.
fn ids(source: &str) -> impl Iterator<Item = &str> {
    let arxiv = source.split("arXiv ").skip(1).map(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.');
        rest[..end.unwrap_or(rest.len())].trim_end_matches('.')
    });
    let predictor = source.contains("improved-aesthetic-predictor");
    arxiv.chain(predictor.then_some("improved-aesthetic-predictor"))
}

fn key(id: &str) -> String {
    if id.starts_with(|char: char| char.is_ascii_digit()) {
        format!("arxiv_{}", id.replace('.', "_"))
    } else {
        id.replace('-', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::REGISTRY;

    #[test]
    fn every_source_of_the_registry_has_an_entry() {
        for metric in REGISTRY {
            let of = references(&[metric], false);
            let named: Vec<&str> = ids(metric.source).collect();
            for id in &named {
                assert!(of.contains(&format!("{{{},", key(id))), "{}: {id}", metric.code);
            }
            assert!(!named.is_empty() || metric.source.contains("as for"), "{}", metric.code);
        }
    }

    #[test]
    fn entries_that_are_not_used_are_left_out() {
        let of = references(&[], false);
        assert_eq!(of.matches("@misc").count(), 1, "{of}");
        assert_eq!(references(&[], true).matches("@misc").count(), 3);
    }
}
