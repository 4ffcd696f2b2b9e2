//! Service metrics of generated images.

use std::time::Duration;

use prometheus::{
    Histogram, IntCounterVec, IntGauge, Registry, register_histogram_with_registry as histogram,
    register_int_counter_vec_with_registry as counters, register_int_gauge_with_registry as gauge,
};

/// Buckets in seconds, from the demo pack to a full-size model on a CPU.
const SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Service metrics of generated images.
#[derive(Debug, Clone)]
pub struct GenerationTelemetry {
    images: IntCounterVec,
    seconds: Histogram,
    /// Images that are being generated.
    pub in_flight: IntGauge,
    /// Limit of `in_flight`; 0 without a generator.
    pub limit: IntGauge,
}

/// How a request for an image ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationOutcome {
    /// The image was sent.
    Generated,
    /// The request was invalid or refused at a limit.
    Refused,
    /// A graph failed, or the deadline passed.
    Failed,
    /// The client left before.
    Cancelled,
}

impl GenerationOutcome {
    const ALL: [Self; 4] = [Self::Generated, Self::Refused, Self::Failed, Self::Cancelled];

    fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl GenerationTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let images = counters!(
            "stellar_generated_images_total",
            "Requests for images, by outcome.",
            &["outcome"],
            registry
        )?;
        for outcome in GenerationOutcome::ALL {
            images.with_label_values(&[outcome.name()]);
        }
        Ok(Self {
            images,
            seconds: histogram!(
                "stellar_generation_seconds",
                "Time to generate an image, without the reading of its request.",
                SECONDS.to_vec(),
                registry
            )?,
            in_flight: gauge!("stellar_generation_images", "Images being generated.", registry)?,
            limit: gauge!(
                "stellar_generation_images_limit",
                "Limit of stellar_generation_images (generator.concurrency).",
                registry
            )?,
        })
    }

    /// Counts a request.
    pub fn ended(&self, outcome: GenerationOutcome) {
        self.images.with_label_values(&[outcome.name()]).inc();
    }

    /// Observes the time of an image.
    pub fn generated(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }
}
