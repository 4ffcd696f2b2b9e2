//! Why a file was refused, in words for the person who sent it.

use super::Format;

/// Why a file did not become an image. `Display` tells the sender what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Zero bytes.
    #[error("the file is empty: send the bytes of a PNG, JPEG or WebP image")]
    Empty,
    /// The first bytes belong to none of the three formats.
    #[error(
        "the file is not a PNG, JPEG or WebP image (its content decides, not its name): convert it, for \
         example to PNG"
    )]
    UnknownFormat,
    /// Longer than [`DecodeLimits::max_bytes`](super::DecodeLimits::max_bytes).
    #[error("the file has {bytes} bytes, the limit is {limit}: send a smaller file")]
    TooManyBytes {
        /// Length of the file.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// A header with a zero side.
    #[error("the image is {width}×{height}: it needs at least one pixel")]
    NoPixels {
        /// Columns as the header says.
        width: u32,
        /// Rows as the header says.
        height: u32,
    },
    /// A side beyond [`DecodeLimits::max_side`](super::DecodeLimits::max_side).
    #[error("the image is {width}×{height}, the limit is {limit} pixels a side: scale or crop it")]
    SideTooLong {
        /// Columns as the header says.
        width: u32,
        /// Rows as the header says.
        height: u32,
        /// The limit in force, in pixels.
        limit: u32,
    },
    /// More pixels than [`DecodeLimits::max_pixels`](super::DecodeLimits::max_pixels).
    #[error("the image is {width}×{height}, the limit is {limit} pixels in all: scale it down")]
    TooManyPixels {
        /// Columns as the header says.
        width: u32,
        /// Rows as the header says.
        height: u32,
        /// The limit in force.
        limit: u64,
    },
    /// Decoding would take more than [`DecodeLimits::max_memory`](super::DecodeLimits::max_memory).
    #[error(
        "decoding this image would take {needed} bytes of memory, the limit is {limit}: scale it down, or \
         save it with 8 bits a channel, without alpha, not progressive"
    )]
    TooMuchMemory {
        /// Estimated peak, in bytes.
        needed: u64,
        /// The limit in force, in bytes.
        limit: u64,
    },
    /// The file ends before the image does.
    #[error("the {format} file is cut short ({detail}): send the whole file")]
    Truncated {
        /// What the file began as.
        format: Format,
        /// What is missing.
        detail: String,
    },
    /// The bytes contradict the format or themselves.
    #[error("the {format} file is damaged ({detail}): save or export the image again")]
    Corrupt {
        /// What the file began as.
        format: Format,
        /// What is wrong with it.
        detail: String,
    },
    /// Legal, but of a kind that is not read here (nor by Pillow).
    #[error(
        "this kind of {format} is not supported ({detail}): save it with 8 bits a channel in RGB or grey"
    )]
    Unsupported {
        /// What the file is.
        format: Format,
        /// Which property is the obstacle.
        detail: String,
    },
}

impl DecodeError {
    /// A short stable name of the variant, for error codes and telemetry labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownFormat => "unknown_format",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::NoPixels { .. } => "no_pixels",
            Self::SideTooLong { .. } => "side_too_long",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::TooMuchMemory { .. } => "too_much_memory",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// The code by which the API and the store name what is wrong with the image.
    #[must_use]
    pub fn problem(&self) -> &'static str {
        match self {
            Self::Empty => "image_empty",
            Self::UnknownFormat | Self::Unsupported { .. } => "image_unsupported",
            Self::Truncated { .. } => "image_truncated",
            Self::Corrupt { .. } => "image_corrupt",
            Self::NoPixels { .. } => "image_too_small",
            Self::TooManyBytes { .. }
            | Self::SideTooLong { .. }
            | Self::TooManyPixels { .. }
            | Self::TooMuchMemory { .. } => "payload_too_large",
        }
    }

    /// Whether a limit refused the file, rather than its content being bad.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooManyBytes { .. }
                | Self::SideTooLong { .. }
                | Self::TooManyPixels { .. }
                | Self::TooMuchMemory { .. }
        )
    }
}
