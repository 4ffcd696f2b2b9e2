//! CPU time and memory of the process.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{
    Counter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::machine;

/// A collector of CPU time and memory of the process, read at each scrape.
pub(super) struct ProcessCollector {
    descriptions: Vec<Desc>,
    started: i64,
}

/// CPU time, start time, resident memory and peak memory of the process.
struct ProcessNumbers {
    processor: Counter,
    started: IntGauge,
    resident: IntGauge,
    peak: IntGauge,
}

impl ProcessNumbers {
    /// Creates the metrics anew for each scrape, so that concurrent scrapes cannot mix their
    /// values.
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            // The standard names in Prometheus client libraries.
            processor: Counter::new("process_cpu_seconds_total", "CPU time of the process.")?,
            started: IntGauge::new(
                "process_start_time_seconds",
                "Start time of the process, in seconds since 1970.",
            )?,
            resident: IntGauge::new(
                "stellar_resident_memory_bytes",
                "Resident memory of the process.",
            )?,
            peak: IntGauge::new(
                "stellar_peak_memory_bytes",
                "Peak resident memory of the process.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 4] {
        [&self.processor, &self.started, &self.resident, &self.peak]
    }
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        let numbers = ProcessNumbers::new()?;
        let descriptions = numbers.collectors().iter().flat_map(|of| of.desc()).cloned().collect();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { descriptions, started: since_1970.as_secs() as i64 })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(numbers) = ProcessNumbers::new() else { return Vec::new() };
        numbers.processor.inc_by(machine::processor_seconds().unwrap_or_default());
        numbers.started.set(self.started);
        numbers.resident.set(machine::resident_bytes().unwrap_or_default() as i64);
        numbers.peak.set(machine::peak_bytes().unwrap_or_default() as i64);
        numbers.collectors().iter().flat_map(|of| of.collect()).collect()
    }
}
