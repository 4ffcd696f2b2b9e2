//! Linear algebra for the fits.

/// A symmetric positive definite matrix, factored as L·Lᵀ.
pub(super) struct Cholesky {
    n: usize,
    /// L in row-major order; entries above the diagonal are not read.
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors an n×n matrix, reading its lower triangle. Returns `None` if it is not positive
    /// definite.
    pub(super) fn new(n: usize, mut matrix: Vec<f64>) -> Option<Self> {
        for i in 0..n {
            let (above, row) = matrix.split_at_mut(i * n);
            for j in 0..=i {
                let other = if j < i { &above[j * n..j * n + j] } else { &[] };
                let sum = row[j] - dot(&row[..other.len()], other);
                if j < i {
                    row[j] = sum / above[j * n + j];
                }
            }
            let diagonal = row[i] - dot(&row[..i], &row[..i]);
            if diagonal.is_nan() || diagonal <= 0.0 {
                return None;
            }
            row[i] = diagonal.sqrt();
        }
        Some(Self { n, lower: matrix })
    }

    /// Solves matrix · x = b.
    pub(super) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let (n, lower) = (self.n, &self.lower);
        let mut x = b.to_vec();
        for i in 0..n {
            x[i] = (x[i] - dot(&lower[i * n..i * n + i], &x[..i])) / lower[i * n + i];
        }
        for i in (0..n).rev() {
            x[i] /= lower[i * n + i];
            let solved = x[i];
            for (earlier, factor) in x[..i].iter_mut().zip(&lower[i * n..i * n + i]) {
                *earlier -= solved * factor;
            }
        }
        x
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_satisfy_their_equations() {
        let matrix = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, -1.0, 3.0, 6.0];
        let x = Cholesky::new(3, matrix).unwrap().solve(&[1.0, 2.0, 3.0]);
        for (row, b) in
            [[4.0, 2.0, -1.0], [2.0, 5.0, 3.0], [-1.0, 3.0, 6.0]].iter().zip([1.0, 2.0, 3.0])
        {
            assert!((dot(row, &x) - b).abs() < 1e-12, "{x:?}");
        }
    }

    #[test]
    fn indefinite_matrices_are_refused() {
        assert!(Cholesky::new(2, vec![1.0, 0.0, 2.0, 1.0]).is_none());
        assert!(Cholesky::new(1, vec![f64::NAN]).is_none());
    }
}
