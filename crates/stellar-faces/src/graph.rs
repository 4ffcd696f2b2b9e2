//! The exporter's graphs as data, from which the networks take their weights.

/// The parts of a graph that this module reads.
pub trait Tensors {
    /// Returns the operators in execution order.
    fn operators(&self) -> Vec<&str>;
    /// Returns the shape and the values of a constant, or `None` if no constant has this name or it
    /// is not in single precision.
    fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])>;

    /// Returns the values of a constant of this shape, all of which must be finite.
    ///
    /// # Errors
    /// Names the constant, if it is missing, has another shape or is not finite.
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Unsuited> {
        match self.tensor(name) {
            Some((found, data)) if found == shape && data.iter().all(|value| value.is_finite()) => {
                Ok(data.to_vec())
            }
            _ => Err(Unsuited::Graph(name.to_owned())),
        }
    }

    /// Returns the slopes of a `PReLU`, which the exporter writes as `slope·x + rest·relu(x)`.
    ///
    /// # Errors
    /// Names the constant that is missing, or the constants that do not form a `PReLU`.
    fn slopes(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Unsuited> {
        let slope = self.take(&format!("{name}.slope"), shape)?;
        let rest = self.take(&format!("{name}.rest"), shape)?;
        let whole = slope.iter().zip(&rest).all(|(slope, rest)| near(slope + rest, 1.0));
        if whole { Ok(slope) } else { Err(Unsuited::Graph(name.to_owned())) }
    }
}

/// Reason why a graph is not computed by this module, but run like any other graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuited {
    /// The graph differs from the exporter's graph of the network in single precision.
    #[error("{0} does not match the exporter's graph")]
    Graph(String),
    /// The CPU lacks the instruction sets.
    #[error("the CPU lacks AVX2 or FMA")]
    Processor,
}

pub(super) fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * b.abs().max(1.0)
}
