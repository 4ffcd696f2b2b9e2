//! A graph that tests can modify.

use super::Tensors;

#[derive(Debug, Clone)]
pub(super) struct FakeGraph {
    pub(super) operators: Vec<&'static str>,
    pub(super) constants: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl FakeGraph {
    /// Returns the shape and the values of an existing constant.
    pub(super) fn constant(&mut self, name: &str) -> (&mut Vec<usize>, &mut Vec<f32>) {
        let found = self.constants.iter_mut().find(|(known, ..)| known == name);
        let (_, shape, data) = found.unwrap_or_else(|| panic!("no constant {name}"));
        (shape, data)
    }
}

impl Tensors for FakeGraph {
    fn operators(&self) -> Vec<&str> {
        self.operators.clone()
    }

    fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        let found = self.constants.iter().find(|(known, ..)| known == name)?;
        Some((&found.1, &found.2))
    }
}
