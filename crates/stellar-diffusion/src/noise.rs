//! The normal numbers of `torch.randn` on the CPU.
//!
//! PyTorch seeds a Mersenne Twister with the low 32 bits of the seed, draws one 24-bit uniform
//! number a value, and replaces blocks of 16 by Box-Muller: the first eight give radii, the last
//! eight angles. A last partial block is not kept: the last 16 values are drawn again.
//! (`aten/src/ATen/native/cpu/DistributionTemplates.h`, `normal_fill`.)

/// Values below which PyTorch uses another algorithm, which this crate does not have.
pub const SMALLEST: usize = 16;

/// Values that are transformed together.
const BLOCK: usize = 16;

/// Too few values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("noise needs at least {SMALLEST} values, found {0}: make a larger image")]
pub struct NoiseError(pub usize);

/// Returns `torch.randn(length, generator=torch.Generator("cpu").manual_seed(seed))`.
///
/// Values differ from PyTorch's by at most 2e-6, since its logarithms and cosines depend on the
/// processor. Only the low 32 bits of the seed count, as in PyTorch: 42 and 2³² + 42 give the same
/// values. PyTorch maps a negative seed to `seed as u64`.
///
/// # Errors
/// If `length` is less than [`SMALLEST`].
pub fn randn(seed: u64, length: usize) -> Result<Vec<f32>, NoiseError> {
    if length < SMALLEST {
        return Err(NoiseError(length));
    }
    let mut twister = Twister::new(seed as u32);
    let mut values: Vec<f32> = (0..length).map(|_| twister.uniform()).collect();
    let mut blocks = values.chunks_exact_mut(BLOCK);
    blocks.by_ref().for_each(box_muller);
    if !blocks.into_remainder().is_empty() {
        let last = &mut values[length - BLOCK..];
        last.fill_with(|| twister.uniform());
        box_muller(last);
    }
    Ok(values)
}

/// Replaces 16 uniform numbers in [0, 1) by normal ones.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (first, second) in first.iter_mut().zip(second) {
        // Logarithm, cosine and sine in double precision: rounded to single precision they do not
        // depend on the C library, so that a seed gives the same bytes everywhere.
        let radius = (-2.0 * f64::from(1.0 - *first).ln() as f32).sqrt();
        let angle = f64::from(std::f32::consts::TAU * *second);
        *first = radius * angle.cos() as f32;
        *second = radius * angle.sin() as f32;
    }
}

/// The Mersenne Twister MT19937 of M. Matsumoto and T. Nishimura, ACM Transactions on Modeling and
/// Computer Simulation 8(1), 1998, with the seeding of their version of 2002.
struct Twister {
    state: [u32; Self::LENGTH],
    at: usize,
}

impl Twister {
    const LENGTH: usize = 624;
    const OFFSET: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = [seed; Self::LENGTH];
        for at in 1..Self::LENGTH {
            let before = state[at - 1];
            state[at] =
                1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(at as u32);
        }
        Self { state, at: Self::LENGTH }
    }

    /// Returns the next 32 random bits.
    fn next(&mut self) -> u32 {
        if self.at == Self::LENGTH {
            self.refill();
        }
        let mut bits = self.state[self.at];
        self.at += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    fn refill(&mut self) {
        for at in 0..Self::LENGTH {
            let next = self.state[(at + 1) % Self::LENGTH];
            let joined = (self.state[at] & 0x8000_0000) | (next & 0x7fff_ffff);
            let twist = if next & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + Self::OFFSET) % Self::LENGTH] ^ (joined >> 1) ^ twist;
        }
        self.at = 0;
    }

    /// Returns a uniform number in [0, 1), a multiple of 2⁻²⁴.
    fn uniform(&mut self) -> f32 {
        (self.next() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twister_has_the_known_ten_thousandth_number() {
        // C++ requires 4123659995 as the 10,000th number of `std::mt19937`, whose seed is 5489.
        let mut twister = Twister::new(5489);
        let last = (0..10_000).map(|_| twister.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn only_the_low_32_bits_of_a_seed_count() {
        assert_eq!(randn(42, 64), randn((1 << 32) + 42, 64));
        assert_ne!(randn(42, 64), randn(43, 64));
    }

    #[test]
    fn a_prefix_of_whole_blocks_does_not_depend_on_the_length() {
        let (short, long) = (randn(7, 32).unwrap(), randn(7, 64).unwrap());
        assert_eq!(short[..16], long[..16]);
        assert_eq!(short, long[..32]);
    }

    #[test]
    fn a_partial_block_is_drawn_again() {
        let (whole, partial) = (randn(7, 32).unwrap(), randn(7, 40).unwrap());
        assert_eq!(whole[..24], partial[..24]);
        assert_ne!(whole[24..], partial[24..32]);
    }

    #[test]
    fn too_few_values_are_refused() {
        assert_eq!(randn(0, 15), Err(NoiseError(15)));
        assert_eq!(randn(0, 16).unwrap().len(), 16);
    }

    #[test]
    fn the_numbers_are_finite_and_have_the_moments_of_a_normal_distribution() {
        let values = randn(3, 1 << 18).unwrap();
        assert!(values.iter().all(|value| value.is_finite()));
        let mean = |power: i32| {
            values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / values.len() as f64
        };
        // Five standard deviations of the means of 2¹⁸ values.
        assert!(mean(1).abs() < 0.01, "{}", mean(1));
        assert!((mean(2) - 1.0).abs() < 0.014, "{}", mean(2));
        assert!((mean(4) - 3.0).abs() < 0.1, "{}", mean(4));
    }
}
