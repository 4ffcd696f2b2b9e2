//! The `[generator]` table of a pack: how its graphs generate images.

use serde::{Deserialize, Serialize};

use super::spec::{Dim, FileSpec, GraphKind, GraphSpec, TensorSpec, entry};
use crate::tensor::Dtype;
use crate::vision::Geometry;

/// Roles of the graphs that generate images.
pub mod roles {
    /// A photo's words: the vectors that stand for its person in a prompt.
    pub const WORDS: &str = "generator.words";
    /// The foreground of a photo: its person.
    pub const MASK: &str = "generator.mask";
    /// The first text tower, with words put in.
    pub const TEXT_1: &str = "generator.text_1";
    /// The second text tower, with words put in.
    pub const TEXT_2: &str = "generator.text_2";
    /// The denoiser: predicts the noise in latents.
    pub const DENOISER: &str = "generator.denoiser";
    /// The decoder: latents to pixels.
    pub const DECODER: &str = "generator.decoder";
}

/// What stands for the person in a prompt.
const PLACEHOLDER: &str = "{}";

/// Bounds of a manifest, which may come from anywhere: far above those of any published model, and
/// small enough that the noise of an image fits into memory.
const MOST_CHANNELS: usize = 64;
const MOST_SIDE: usize = 8192;

/// How the graphs of a pack generate images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorSpec {
    /// Label of the system, the default name of its method.
    pub system: String,
    /// What stands for the person in a prompt.
    pub placeholder: String,
    /// Vectors that replace the placeholder in each text tower; 0 in a pack without words.
    pub words: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Pixels of a latent's side.
    pub latent_factor: usize,
    /// Factor that the latents were multiplied with in training; the decoder takes them without.
    pub scaling_factor: f32,
    /// Width and height in pixels are multiples of this.
    pub side_multiple: usize,
    /// Width and height in pixels, unless requested.
    pub default_side: usize,
    /// Largest width and height in pixels.
    pub largest_side: usize,
    /// The noise levels and the method of a step.
    pub scheduler: FileSpec,
    /// What the weights were trained on, if they were.
    #[serde(default)]
    pub training: Option<FileSpec>,
}

/// The entry and the problem.
type Inconsistent = (String, String);

impl GeneratorSpec {
    /// Returns the files that the table names.
    pub(super) fn files(&self) -> impl Iterator<Item = &FileSpec> {
        std::iter::once(&self.scheduler).chain(&self.training)
    }

    /// Returns the files that the table names, to change their paths.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileSpec> {
        std::iter::once(&mut self.scheduler).chain(&mut self.training)
    }

    /// Checks the table, and that the graphs fit together.
    pub(super) fn check(&self, graphs: &[GraphSpec]) -> Result<(), Inconsistent> {
        self.check_numbers().map_err(|problem| ("generator".to_owned(), problem))?;
        let find = |role: &str| graphs.iter().find(|graph| graph.role == role);
        let need = |role: &str| {
            find(role)
                .ok_or_else(|| ("generator".to_owned(), format!("the pack has no graph `{role}`")))
        };
        let (denoiser, decoder) = (need(roles::DENOISER)?, need(roles::DECODER)?);
        let widths = [
            self.check_text(need(roles::TEXT_1)?, &["hidden"])?,
            self.check_text(need(roles::TEXT_2)?, &["hidden", "pooled"])?,
        ];
        let [(context, first, _), (other, second, pooled)] = widths;
        if context != other {
            let problem = format!("its context is {other}, that of {} is {context}", roles::TEXT_1);
            return Err((entry("graph", roles::TEXT_2), problem));
        }
        let fixed = |length: usize| Dim::Fixed(length);
        let latents = [fixed(self.latent_channels), Dim::Dynamic, Dim::Dynamic];
        expect(
            denoiser,
            &[
                ("sample", Dtype::F32, &latents),
                ("timestep", Dtype::F32, &[]),
                ("context", Dtype::F32, &[fixed(context), fixed(first + second)]),
                ("pooled", Dtype::F32, &[fixed(pooled)]),
                ("time_ids", Dtype::F32, &[fixed(6)]),
            ],
            &[("noise", &latents)],
        )?;
        let image = [fixed(3), Dim::Dynamic, Dim::Dynamic];
        expect(decoder, &[("latents", Dtype::F32, &latents)], &[("image", &image)])?;
        if let Some(words) = find(roles::WORDS) {
            if self.words == 0 {
                let problem = "`words` is 0, but the pack has a graph that makes them";
                return Err(("generator".to_owned(), problem.to_owned()));
            }
            let each = |width| [fixed(self.words), fixed(width)];
            if words.kind != GraphKind::Image {
                return Err((words.entry(), "it must be an image graph".to_owned()));
            }
            expect_outputs(words, &[("words_1", &each(first)), ("words_2", &each(second))])?;
        }
        if let Some(mask) = find(roles::MASK) {
            let (GraphKind::Image, Some(Geometry::Exact { height, width, .. })) =
                (mask.kind, mask.geometry)
            else {
                // A crop or a margin would shift the mask on the photo.
                let problem = "it must be an image graph whose geometry is `exact`";
                return Err((mask.entry(), problem.to_owned()));
            };
            let shape = [fixed(height as usize), fixed(width as usize)];
            expect_outputs(mask, &[("foreground", &shape)])?;
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), String> {
        let numbers = [
            ("latent_channels", self.latent_channels),
            ("latent_factor", self.latent_factor),
            ("side_multiple", self.side_multiple),
            ("default_side", self.default_side),
            ("largest_side", self.largest_side),
        ];
        if let Some((key, _)) = numbers.iter().find(|(_, number)| *number == 0) {
            return Err(format!("`{key}` is 0, expected at least 1"));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return Err(format!(
                "`scaling_factor` is {}, expected a positive number",
                self.scaling_factor
            ));
        }
        if self.placeholder != PLACEHOLDER {
            return Err(format!(
                "`placeholder` is `{}`, expected `{PLACEHOLDER}`: prompts are split there",
                self.placeholder
            ));
        }
        let largest = [
            ("latent_channels", self.latent_channels, MOST_CHANNELS),
            ("largest_side", self.largest_side, MOST_SIDE),
        ];
        if let Some((key, number, most)) = largest.iter().find(|(_, number, most)| number > most) {
            return Err(format!("`{key}` is {number}, expected at most {most}"));
        }
        if self.system.trim().is_empty() {
            return Err("`system` is empty, expected a name".to_owned());
        }
        if !self.side_multiple.is_multiple_of(self.latent_factor) {
            return Err(format!(
                "`side_multiple` is {}, expected a multiple of `latent_factor`, {}",
                self.side_multiple, self.latent_factor
            ));
        }
        let sides = [("default_side", self.default_side), ("largest_side", self.largest_side)];
        if let Some((key, side)) =
            sides.iter().find(|(_, side)| !side.is_multiple_of(self.side_multiple))
        {
            return Err(format!(
                "`{key}` is {side}, expected a multiple of `side_multiple`, {}",
                self.side_multiple
            ));
        }
        if self.default_side > self.largest_side {
            return Err(format!(
                "`default_side` is {}, more than `largest_side`, {}",
                self.default_side, self.largest_side
            ));
        }
        Ok(())
    }

    /// Checks a text tower. Returns its context, its width and that of its pooled output (0 if it
    /// has none).
    fn check_text(
        &self,
        graph: &GraphSpec,
        names: &[&str],
    ) -> Result<(usize, usize, usize), Inconsistent> {
        let Some(text) = &graph.text else {
            return Err((graph.entry(), "it needs a `text` table".to_owned()));
        };
        // Start token, words and end token.
        if text.context < self.words + 2 {
            let problem =
                format!("`context` is {}, too little for {} words", text.context, self.words);
            return Err((graph.entry(), problem));
        }
        let length = |name: &str| {
            let output = graph.outputs.iter().find(|output| output.name == name);
            match output.and_then(|output| output.shape.last()) {
                Some(Dim::Fixed(length)) => *length,
                _ => 0,
            }
        };
        let (width, pooled) = (length("hidden"), length("pooled"));
        let context = Dim::Fixed(text.context);
        expect_inputs(
            graph,
            &[
                ("input_ids", Dtype::I64, &[context]),
                ("words", Dtype::F32, &[Dim::Dynamic, Dim::Fixed(width)]),
                ("at", Dtype::I64, &[]),
                ("eos", Dtype::I64, &[]),
            ],
        )?;
        let outputs: [(&str, &[Dim]); 2] =
            [("hidden", &[context, Dim::Fixed(width)]), ("pooled", &[Dim::Fixed(pooled)])];
        expect_outputs(graph, &outputs[..names.len()])?;
        Ok((text.context, width, pooled))
    }
}

type Input<'a> = (&'a str, Dtype, &'a [Dim]);
type Output<'a> = (&'a str, &'a [Dim]);

fn expect(graph: &GraphSpec, inputs: &[Input], outputs: &[Output]) -> Result<(), Inconsistent> {
    expect_inputs(graph, inputs)?;
    expect_outputs(graph, outputs)
}

/// Checks the inputs and their order, which is that of an item's tensors.
fn expect_inputs(graph: &GraphSpec, inputs: &[Input]) -> Result<(), Inconsistent> {
    let expected: Vec<_> =
        inputs.iter().map(|(name, dtype, shape)| tensor(name, *dtype, shape)).collect();
    if graph.inputs == expected {
        return Ok(());
    }
    let names: Vec<_> = expected.iter().map(ToString::to_string).collect();
    let problem = format!("it takes {}, expected {}", graph.signature(), names.join(" and "));
    Err((graph.entry(), problem))
}

/// Checks that a graph has these outputs. It may have others.
fn expect_outputs(graph: &GraphSpec, outputs: &[Output]) -> Result<(), Inconsistent> {
    for (name, shape) in outputs {
        let expected = tensor(name, Dtype::F32, shape);
        match graph.outputs.iter().find(|output| output.name == *name) {
            Some(found) if *found == expected => {}
            Some(found) => {
                return Err((graph.entry(), format!("it returns {found}, expected {expected}")));
            }
            None => return Err((graph.entry(), format!("it has no output {expected}"))),
        }
    }
    Ok(())
}

fn tensor(name: &str, dtype: Dtype, shape: &[Dim]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pack::Pack;

    fn demo() -> (GeneratorSpec, Vec<GraphSpec>) {
        let pack =
            Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo-generator")).unwrap();
        (pack.generator.unwrap(), pack.graphs)
    }

    fn at<'a>(graphs: &'a mut [GraphSpec], role: &str) -> &'a mut GraphSpec {
        graphs.iter_mut().find(|graph| graph.role == role).unwrap()
    }

    #[test]
    fn the_demo_pack_is_consistent_with_words_and_without() {
        let (mut spec, mut graphs) = demo();
        assert_eq!(spec.check(&graphs), Ok(()));
        graphs.retain(|graph| graph.role != roles::WORDS);
        spec.words = 0;
        assert_eq!(spec.check(&graphs), Ok(()));
    }

    #[test]
    fn wrong_numbers_are_refused_with_their_key() {
        type Edit = fn(&mut GeneratorSpec);
        let cases: [(Edit, &str); 12] = [
            (|spec| spec.placeholder = "S*".into(), "`placeholder` is `S*`, expected `{}`"),
            (|spec| spec.largest_side = 1 << 20, "`largest_side` is 1048576, expected at most"),
            (|spec| spec.latent_channels = 65, "`latent_channels` is 65, expected at most 64"),
            (|spec| spec.latent_channels = 0, "`latent_channels` is 0"),
            (|spec| spec.scaling_factor = f32::NAN, "`scaling_factor` is NaN"),
            (|spec| spec.scaling_factor = 0.0, "`scaling_factor` is 0"),
            (|spec| spec.system = " ".into(), "`system` is empty"),
            (|spec| spec.side_multiple = 12, "a multiple of `latent_factor`, 8"),
            (|spec| spec.default_side = 65, "`default_side` is 65, expected a multiple"),
            (|spec| spec.largest_side = 32, "more than `largest_side`"),
            (|spec| spec.words = 0, "`words` is 0, but"),
            (|spec| spec.words = 76, "too little for 76 words"),
        ];
        for (edit, reason) in cases {
            let (mut spec, graphs) = demo();
            edit(&mut spec);
            let (_, problem) = spec.check(&graphs).unwrap_err();
            assert!(problem.contains(reason), "{reason}: {problem}");
        }
    }

    #[test]
    fn graphs_that_do_not_fit_together_are_refused() {
        let (spec, graphs) = demo();
        let refused = |edit: &dyn Fn(&mut Vec<GraphSpec>)| {
            let mut graphs = graphs.clone();
            edit(&mut graphs);
            spec.check(&graphs).unwrap_err()
        };
        for role in [roles::TEXT_1, roles::TEXT_2, roles::DENOISER, roles::DECODER] {
            let (_, problem) = refused(&|graphs| graphs.retain(|graph| graph.role != role));
            assert!(problem.contains(&format!("no graph `{role}`")), "{problem}");
        }
        let (entry, problem) = refused(&|graphs| at(graphs, roles::DENOISER).inputs.swap(0, 1));
        assert!(entry.contains("denoiser") && problem.contains("expected sample"), "{problem}");
        let (entry, problem) = refused(&|graphs| {
            at(graphs, roles::TEXT_1).outputs[0].shape[1] = Dim::Fixed(31);
        });
        assert!(entry.contains("text_1") && problem.contains("words f32[any, 31]"), "{problem}");
        let (entry, problem) = refused(&|graphs| {
            at(graphs, roles::WORDS).outputs[1].shape[0] = Dim::Fixed(4);
        });
        assert!(entry.contains("words") && problem.contains("words_2 f32[4, 40]"), "{problem}");
        let (entry, problem) = refused(&|graphs| {
            at(graphs, roles::DECODER).outputs[0].name = "pixels".into();
        });
        assert!(entry.contains("decoder") && problem.contains("no output image"), "{problem}");
        let mask = |edit: &dyn Fn(&mut GraphSpec)| {
            refused(&|graphs| {
                let mut mask = at(graphs, roles::WORDS).clone();
                mask.role = roles::MASK.to_owned();
                mask.outputs.truncate(1);
                mask.outputs[0].name = "foreground".to_owned();
                mask.outputs[0].shape = vec![Dim::Fixed(224), Dim::Fixed(224)];
                edit(&mut mask);
                graphs.push(mask);
            })
        };
        let (entry, problem) =
            mask(&|mask| mask.geometry = Some(Geometry::Letterbox { size: 224 }));
        assert!(entry.contains("mask") && problem.contains("geometry is `exact`"), "{problem}");
        let (_, problem) = mask(&|mask| mask.outputs[0].shape[0] = Dim::Fixed(7));
        assert!(problem.contains("expected foreground f32[224, 224]"), "{problem}");
        let (entry, problem) = refused(&|graphs| at(graphs, roles::TEXT_2).text = None);
        assert!(entry.contains("text_2") && problem.contains("`text` table"), "{problem}");
    }
}
