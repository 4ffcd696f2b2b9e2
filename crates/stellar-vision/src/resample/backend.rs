//! Choice of the instruction set.

use super::coefficients::Coefficients;
use super::kernel::{Columns, Rows};
use super::portable;

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// An instruction set. All produce the same bits, because the sums are integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Portable code, vectorised by the compiler for the baseline of the architecture.
    Portable,
    /// 256-bit integer instructions (x86 from 2013 on).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits with the byte permutation and dot product extensions (VBMI, VNNI; x86 servers from
    /// 2019 on).
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Backend {
    /// Returns all instruction sets that this machine supports, fastest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            avx512::is_supported().then_some(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            avx2::is_supported().then_some(Self::Avx2),
            Some(Self::Portable),
        ]
        .into_iter()
        .flatten()
    }

    /// Returns the fastest instruction set that this machine supports.
    pub(super) fn best() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }

    pub(super) fn columns(self, coefficients: &Coefficients) -> Box<dyn Columns> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if avx512::can_hold(coefficients) => {
                Box::new(avx512::ColumnKernel::new(coefficients))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 if avx2::can_hold(coefficients) => {
                Box::new(avx2::ColumnKernel::new(coefficients))
            }
            _ => Box::new(portable::ColumnKernel::new(coefficients)),
        }
    }

    pub(super) fn rows(self, coefficients: &Coefficients) -> Box<dyn Rows> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if avx512::can_hold(coefficients) => {
                Box::new(avx512::RowKernel::new(coefficients))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 if avx2::can_hold(coefficients) => {
                Box::new(avx2::RowKernel::new(coefficients))
            }
            _ => Box::new(portable::RowKernel::new(coefficients)),
        }
    }
}
