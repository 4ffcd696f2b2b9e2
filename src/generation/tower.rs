//! The text towers: their tokenizers and sizes.

use super::GenerationError;
use super::prompt::Frame;
use crate::engine::pack::Dim;
use crate::engine::{GraphSpec, Pack, TokenizerKind};
use crate::text::ClipTokenizer;

/// A text tower of the pack.
#[derive(Debug)]
pub(super) struct Tower {
    pub(super) role: &'static str,
    /// Its token ids.
    pub(super) frame: Frame,
    /// Width of its words and states.
    pub(super) width: usize,
}

/// Loads the tokenizer of a text tower.
pub(super) fn tower(pack: &Pack, role: &'static str) -> Result<Tower, GenerationError> {
    // Checked when the pack was opened.
    let (graph, text) = pack
        .graph(role)
        .and_then(|graph| Some((graph, graph.text.as_ref()?)))
        .ok_or_else(|| GenerationError::NoGenerator { pack: pack.name.clone() })?;
    let (kind, merges) = pack.read_tokenizer(&text.tokenizer)?;
    let invalid = |problem| pack.invalid_tokenizer(&text.tokenizer, problem);
    if kind != TokenizerKind::ClipBpe {
        return Err(invalid("a generator needs CLIP's tokenizer, `clip_bpe`".to_owned()).into());
    }
    let tokenizer = ClipTokenizer::from_merges(&merges, text.cleaning)
        .map_err(|error| invalid(error.to_string()))?;
    let frame = Frame::new(tokenizer, text.context, text.pad).map_err(invalid)?;
    Ok(Tower { role, frame, width: width(graph) })
}

/// Returns the width of a tower's words.
fn width(graph: &GraphSpec) -> usize {
    let words = graph.inputs.iter().find(|input| input.name == "words");
    match words.and_then(|words| words.shape.last()) {
        Some(Dim::Fixed(width)) => *width,
        _ => 0,
    }
}
