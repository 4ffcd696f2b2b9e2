//! File formats of the reference toolkit: its CSV files of scores and its JSON files of generated
//! images.
//!
//! This module converts between text and values and does not open any file. Names and columns are
//! those of `stellar-metrics`, so its files can be imported and its analysis can read ours.

mod fill;
mod generation;
mod table;

pub use fill::{Predictions, Scores, files, fill};
pub use generation::{Generation, GenerationError, format_prompt, labels};
pub use table::{AttributeColumn, Columns, MOST_CELLS, Table, ToolkitError, parse};

/// A kind of file that the toolkit writes, one for each of its metrics.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Common prefix of its file names, by which the toolkit's analysis finds them.
    pub prefix: &'static str,
    /// File name without `.csv`; for CLIP, the checkpoint follows.
    pub name: &'static str,
    /// Columns after `name`, each with the code of our metric. Empty for attributes, whose columns
    /// are `<attribute>_target` and `<attribute>_pred`.
    pub scores: &'static [(&'static str, &'static str)],
}

/// All kinds of file. The last one is not in the published toolkit, whose analysis reserves the
/// prefix.
pub static FILES: [File; 12] = [
    File {
        prefix: "clip",
        name: "clip",
        scores: &[("clip_t", "clip_t"), ("clip_n", "clip_n"), ("clip_i", "clip_i")],
    },
    File { prefix: "attribute_preservation", name: "attribute_preservation_syn", scores: &[] },
    File {
        prefix: "aesthetic",
        name: "aesthetic_score",
        scores: &[("aesthetic_score", "aesthetic")],
    },
    File { prefix: "pick_score", name: "pick_score", scores: &[("pick_score", "pick_score")] },
    File {
        prefix: "image_reward",
        name: "image_reward",
        scores: &[("image_reward", "image_reward")],
    },
    File {
        prefix: "human_preference",
        name: "human_preference_score",
        scores: &[("human_preference_score_v1", "hpsv1"), ("human_preference_score_v2", "hpsv2")],
    },
    File { prefix: "dino", name: "dino", scores: &[("dino_fidelity", "dino")] },
    File { prefix: "dreamsim", name: "dreamsim", scores: &[("dreamsim_distance", "dreamsim")] },
    File {
        prefix: "identity_preservation",
        name: "identity_preservation",
        scores: &[("identity_preservation", "ips")],
    },
    File {
        prefix: "identity_stability",
        name: "identity_stability",
        scores: &[("identity_stability", "sis")],
    },
    File {
        prefix: "object",
        name: "object_faithfulness",
        scores: &[("object_faithfulness", "goa")],
    },
    File {
        prefix: "relation",
        name: "relation_faithfulness",
        scores: &[("relation_faithfulness_score", "rfs")],
    },
];

impl File {
    /// Returns whether this is the file of `<attribute>_target` and `<attribute>_pred`.
    #[must_use]
    pub fn is_attributes(&self) -> bool {
        self.scores.is_empty()
    }

    /// Returns the file's name, given the checkpoint of the CLIP model that it was computed with.
    #[must_use]
    pub fn file_name(&self, clip: &str) -> String {
        match self.name {
            "clip" => format!("clip_{}.csv", clip.replace('/', "_")),
            name => format!("{name}.csv"),
        }
    }

    /// Returns the kind of file that a name belongs to.
    #[must_use]
    pub fn of_name(name: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| name.starts_with(file.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::REGISTRY;

    #[test]
    fn every_code_belongs_to_a_metric() {
        for (_, code) in FILES.iter().flat_map(|file| file.scores) {
            // `rfs` may be imported before any pack can compute it.
            assert!(*code == "rfs" || REGISTRY.iter().any(|metric| metric.code == *code), "{code}");
        }
    }

    #[test]
    fn written_names_are_found_by_their_prefix() {
        for file in &FILES {
            let name = file.file_name("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k");
            assert_eq!(File::of_name(&name), Some(file), "{name}");
        }
        assert_eq!(File::of_name("res_1702059000.md"), None);
    }

    #[test]
    fn the_clip_file_names_its_checkpoint_without_slashes() {
        assert_eq!(
            FILES[0].file_name("openai/clip-vit-base-patch32"),
            "clip_openai_clip-vit-base-patch32.csv"
        );
    }
}
