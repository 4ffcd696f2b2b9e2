//! Service metrics of the machine's NVIDIA GPUs.
//!
//! They are read through NVML, which is part of the driver. It is opened only if graphs run on a
//! GPU, so that the program does not link it or need it elsewhere.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

/// The readings of one GPU; `None` for those that it does not report.
#[derive(Debug, Clone, Default, PartialEq)]
struct Gpu {
    name: String,
    /// Share of the last sampling period in which a kernel ran. A kernel may leave most of the GPU
    /// idle: compare `stellar-score bench graphs`.
    busy: Option<f64>,
    used_bytes: Option<f64>,
    bytes: Option<f64>,
    watts: Option<f64>,
    celsius: Option<f64>,
}

/// Name, help text and reading of a gauge.
type Number = (&'static str, &'static str, fn(&Gpu) -> Option<f64>);

const NUMBERS: [Number; 5] = [
    ("stellar_device_busy_ratio", "Share of the time in which the GPU ran a kernel.", |gpu| {
        gpu.busy
    }),
    ("stellar_device_memory_used_bytes", "GPU memory in use, by all processes.", |gpu| {
        gpu.used_bytes
    }),
    ("stellar_device_memory_bytes", "GPU memory.", |gpu| gpu.bytes),
    ("stellar_device_power_watts", "Power draw of the GPU.", |gpu| gpu.watts),
    ("stellar_device_temperature_celsius", "Temperature of the GPU.", |gpu| gpu.celsius),
];

/// A collector of GPU readings, taken at each scrape.
pub struct Gpus {
    read: Box<dyn Fn() -> Vec<Gpu> + Send + Sync>,
    /// All gauges that may be exported. Those without readings have no series.
    descriptions: Vec<Desc>,
}

impl Gpus {
    /// Opens NVML and collects all GPUs visible to this process, in the driver's order.
    ///
    /// The error says why there are none.
    pub fn open() -> Result<Self, String> {
        let nvml = Nvml::init().map_err(|error| format!("failed to open NVML: {error}"))?;
        Ok(Self::new(move || {
            let count = nvml.device_count().unwrap_or_default();
            (0..count).filter_map(|place| gpu(&nvml, place)).collect()
        }))
    }

    /// One GPU that reports everything, for tests of the export.
    #[cfg(test)]
    pub(crate) fn of_every_reading() -> Self {
        let some = Some(1.0);
        let gpu = Gpu {
            name: "gpu".to_owned(),
            busy: some,
            used_bytes: some,
            bytes: some,
            watts: some,
            celsius: some,
        };
        Self::new(move || vec![gpu.clone()])
    }

    /// Returns the name and memory in bytes of each GPU, or the reason why there are none.
    pub fn list() -> Result<Vec<(String, u64)>, String> {
        let nvml = Nvml::init().map_err(|error| format!("failed to open NVML: {error}"))?;
        let count = nvml.device_count().map_err(|error| error.to_string())?;
        let gpus = (0..count).filter_map(|place| gpu(&nvml, place));
        Ok(gpus.map(|gpu| (gpu.name, gpu.bytes.unwrap_or_default() as u64)).collect())
    }

    fn new(read: impl Fn() -> Vec<Gpu> + Send + Sync + 'static) -> Self {
        let descriptions = NUMBERS
            .iter()
            .flat_map(|(name, help, _)| {
                gauges(name, help).desc().into_iter().cloned().collect::<Vec<_>>()
            })
            .collect();
        Self { read: Box::new(read), descriptions }
    }
}

fn gauges(name: &str, help: &str) -> GaugeVec {
    GaugeVec::new(Opts::new(name, help), &["device", "card"]).expect("constant names are valid")
}

fn gpu(nvml: &Nvml, place: u32) -> Option<Gpu> {
    let gpu = nvml.device_by_index(place).ok()?;
    let memory = gpu.memory_info().ok();
    Some(Gpu {
        name: gpu.name().unwrap_or_default(),
        busy: gpu.utilization_rates().ok().map(|percent| f64::from(percent.gpu) / 100.0),
        used_bytes: memory.as_ref().map(|memory| memory.used as f64),
        bytes: memory.map(|memory| memory.total as f64),
        watts: gpu.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
        celsius: gpu.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
    })
}

impl Collector for Gpus {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gpus = (self.read)();
        let mut families = Vec::new();
        for (name, help, of) in NUMBERS {
            let gauges = gauges(name, help);
            for (place, gpu) in gpus.iter().enumerate() {
                if let Some(number) = of(gpu) {
                    gauges.with_label_values(&[&place.to_string(), &gpu.name]).set(number);
                }
            }
            families.extend(
                gauges.collect().into_iter().filter(|family| !family.get_metric().is_empty()),
            );
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prometheus::{Encoder as _, Registry, TextEncoder};

    use super::*;

    #[test]
    fn a_reading_that_a_gpu_does_not_report_has_no_series() {
        let gpu = Gpu {
            name: "H100".into(),
            busy: Some(0.5),
            used_bytes: Some(1024.0),
            ..Gpu::default()
        };
        let silent = Gpu { name: "old".into(), ..Gpu::default() };
        let gpus = [gpu, silent];
        let registry = Registry::new();
        registry.register(Box::new(Gpus::new(move || gpus.to_vec()))).unwrap();
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                "stellar_device_busy_ratio{card=\"H100\",device=\"0\"} 0.5",
                "stellar_device_memory_used_bytes{card=\"H100\",device=\"0\"} 1024",
            ]
        );
    }

    #[test]
    fn opening_without_a_driver_returns_the_reason() {
        if Path::new("/dev/nvidiactl").exists() {
            return;
        }
        let Err(reason) = Gpus::open() else { panic!("there is no driver") };
        assert!(reason.starts_with("failed to open NVML"), "{reason}");
    }
}
