//! Decoding errors, worded for the sender of the file.

use super::format::Format;

/// Reason why an image file was rejected. `Display` says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file has zero bytes.
    #[error("the file is empty: send the bytes of a PNG, JPEG, WebP or PPM image")]
    Empty,
    /// The first bytes match none of the formats.
    #[error(
        "the file is not a PNG, JPEG, WebP or PPM image (the format is detected from the content, not \
            the name): convert \
         it, for example to PNG"
    )]
    UnknownFormat,
    /// The file is longer than [`DecodeLimits::max_bytes`](super::DecodeLimits::max_bytes).
    #[error("the file has {bytes} bytes, but the limit is {limit}: send a smaller file")]
    TooManyBytes {
        /// Length of the file, in bytes.
        bytes: usize,
        /// The configured limit, in bytes.
        limit: usize,
    },
    /// The header declares a side of 0.
    #[error("the image is {width}×{height}: it needs at least one pixel")]
    NoPixels {
        /// Columns according to the header.
        width: u32,
        /// Rows according to the header.
        height: u32,
    },
    /// A side is longer than [`DecodeLimits::max_side`](super::DecodeLimits::max_side).
    #[error(
        "the image is {width}×{height}, but the limit is {limit} pixels per side: scale or crop it"
    )]
    SideTooLong {
        /// Columns according to the header.
        width: u32,
        /// Rows according to the header.
        height: u32,
        /// The configured limit, in pixels.
        limit: u32,
    },
    /// The image has more pixels than
    /// [`DecodeLimits::max_pixels`](super::DecodeLimits::max_pixels).
    #[error(
        "the image is {width}×{height}, but the limit is {limit} pixels in total: scale it down"
    )]
    TooManyPixels {
        /// Columns according to the header.
        width: u32,
        /// Rows according to the header.
        height: u32,
        /// The configured limit, in pixels.
        limit: u64,
    },
    /// Decoding would take more memory than
    /// [`DecodeLimits::max_memory`](super::DecodeLimits::max_memory).
    #[error(
        "decoding this image would take {needed} bytes of memory, but the limit is {limit}: scale \
            it down, \
         or save it with 8 bits per channel, without alpha and not progressive"
    )]
    TooMuchMemory {
        /// Estimated peak memory, in bytes.
        needed: u64,
        /// The configured limit, in bytes.
        limit: u64,
    },
    /// The file ends before the image does.
    #[error("the {format} file is truncated ({detail}): send the whole file")]
    Truncated {
        /// Format according to the first bytes.
        format: Format,
        /// Description of the missing part.
        detail: String,
    },
    /// The bytes contradict the format or themselves.
    #[error("the {format} file is damaged ({detail}): save or export the image again")]
    Corrupt {
        /// Format according to the first bytes.
        format: Format,
        /// Description of the damage.
        detail: String,
    },
    /// The file is valid, but of a kind that is not supported here (nor by Pillow).
    #[error(
        "this kind of {format} is not supported ({detail}): save it with 8 bits per channel in RGB \
            or grey"
    )]
    Unsupported {
        /// Format of the file.
        format: Format,
        /// The unsupported property.
        detail: String,
    },
}

impl DecodeError {
    /// Returns a short, stable name of the variant, for error codes and telemetry labels.
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

    /// Returns the code that the API and the store use for this error.
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

    /// Returns whether a limit rejected the file, rather than its content.
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
