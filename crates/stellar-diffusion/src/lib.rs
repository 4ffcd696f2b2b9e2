//! The arithmetic around a diffusion model, in single precision.
//!
//! ```text
//! seed ── noise      PyTorch's normal numbers of the seed           (noise)
//!      ── schedule   timesteps and noise levels of a number of steps (schedule)
//!      ── sampler    input of the model, guidance, Euler or LMS step (sampler, lms)
//!      ── image      the decoder's output as bytes                   (image)
//! ```
//!
//! The model itself is run by the caller.

#![forbid(unsafe_code)]

mod image;
mod lms;
mod noise;
mod sampler;
mod schedule;

pub use image::{ImageError, rgb8};
pub use noise::{NoiseError, SMALLEST, randn};
pub use sampler::{LengthError, Sampler, guide};
pub use schedule::{Kind, Plan, Prediction, Schedule, ScheduleError, Spacing};
