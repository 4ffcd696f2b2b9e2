//! The exporter's graphs as data, of which networks take their weights.

/// A graph, as far as this module asks about it.
pub trait Tensors {
    /// The operators in the order of their execution.
    fn operators(&self) -> Vec<&str>;
    /// A constant with its shape; `None` if there is none of this name or it is not in single precision.
    fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])>;

    /// A constant of this shape, all of whose values are finite.
    ///
    /// # Errors
    /// Its name, if there is none.
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Unsuited> {
        match self.tensor(name) {
            Some((found, data)) if found == shape && data.iter().all(|value| value.is_finite()) => {
                Ok(data.to_vec())
            }
            _ => Err(Unsuited::Graph(name.to_owned())),
        }
    }

    /// The slopes of a `PReLU`, which the exporter writes as `slope·x + rest·relu(x)`.
    ///
    /// # Errors
    /// What is not there, or is no `PReLU`.
    fn slopes(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Unsuited> {
        let slope = self.take(&format!("{name}.slope"), shape)?;
        let rest = self.take(&format!("{name}.rest"), shape)?;
        let whole = slope.iter().zip(&rest).all(|(slope, rest)| near(slope + rest, 1.0));
        if whole { Ok(slope) } else { Err(Unsuited::Graph(name.to_owned())) }
    }
}

/// Why a graph is not computed here but as any other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuited {
    /// It is not the graph that the exporter makes of the network in single precision.
    #[error("{0} is not as the exporter makes it")]
    Graph(String),
    /// The processor lacks the instructions.
    #[error("the processor has no AVX2 and FMA")]
    Processor,
}

pub(super) fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * b.abs().max(1.0)
}
