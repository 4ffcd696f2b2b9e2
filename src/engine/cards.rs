//! What the machine's NVIDIA cards say of themselves, for `/metrics`.
//!
//! Asked through NVML, which the driver brings. It is opened only where graphs run on a card, so that the program neither links nor
//! needs it elsewhere.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

/// What a card says; what it does not tell is left out.
#[derive(Debug, Clone, Default, PartialEq)]
struct Card {
    name: String,
    /// Share of the last sampling period in which some kernel ran. A kernel may leave most of the card idle: compare
    /// `stellar-score bench graphs`.
    busy: Option<f64>,
    used_bytes: Option<f64>,
    bytes: Option<f64>,
    watts: Option<f64>,
    celsius: Option<f64>,
}

/// A number of a card.
type Number = (&'static str, &'static str, fn(&Card) -> Option<f64>);

const NUMBERS: [Number; 5] = [
    ("stellar_device_busy_ratio", "Share of the time in which the card ran some kernel.", |card| card.busy),
    ("stellar_device_memory_used_bytes", "Memory of the card that is taken, by whomever.", |card| {
        card.used_bytes
    }),
    ("stellar_device_memory_bytes", "Memory of the card.", |card| card.bytes),
    ("stellar_device_power_watts", "Power that the card draws.", |card| card.watts),
    ("stellar_device_temperature_celsius", "Temperature of the card.", |card| card.celsius),
];

/// The cards' numbers, read when they are asked for.
pub struct Cards {
    read: Box<dyn Fn() -> Vec<Card> + Send + Sync>,
    /// How the numbers are called. Not all of them need have values.
    descriptions: Vec<Desc>,
}

impl Cards {
    /// All cards that the driver shows to this process, in the driver's order; the error says why there are none.
    pub fn open() -> Result<Self, String> {
        let nvml = Nvml::init().map_err(|error| format!("NVML cannot be used: {error}"))?;
        Ok(Self::new(move || {
            let count = nvml.device_count().unwrap_or_default();
            (0..count).filter_map(|place| card(&nvml, place)).collect()
        }))
    }

    fn new(read: impl Fn() -> Vec<Card> + Send + Sync + 'static) -> Self {
        let descriptions = NUMBERS
            .iter()
            .flat_map(|(name, help, _)| gauges(name, help).desc().into_iter().cloned().collect::<Vec<_>>())
            .collect();
        Self { read: Box::new(read), descriptions }
    }
}

fn gauges(name: &str, help: &str) -> GaugeVec {
    GaugeVec::new(Opts::new(name, help), &["device", "card"]).expect("constant names are valid")
}

fn card(nvml: &Nvml, place: u32) -> Option<Card> {
    let card = nvml.device_by_index(place).ok()?;
    let memory = card.memory_info().ok();
    Some(Card {
        name: card.name().unwrap_or_default(),
        busy: card.utilization_rates().ok().map(|percent| f64::from(percent.gpu) / 100.0),
        used_bytes: memory.as_ref().map(|memory| memory.used as f64),
        bytes: memory.map(|memory| memory.total as f64),
        watts: card.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
        celsius: card.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
    })
}

impl Collector for Cards {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cards = (self.read)();
        let mut families = Vec::new();
        for (name, help, of) in NUMBERS {
            let gauges = gauges(name, help);
            for (place, card) in cards.iter().enumerate() {
                if let Some(number) = of(card) {
                    gauges.with_label_values(&[&place.to_string(), &card.name]).set(number);
                }
            }
            families.extend(gauges.collect().into_iter().filter(|family| !family.get_metric().is_empty()));
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
    fn what_a_card_does_not_tell_has_no_series() {
        let told = Card { name: "H100".into(), busy: Some(0.5), used_bytes: Some(1024.0), ..Card::default() };
        let silent = Card { name: "old".into(), ..Card::default() };
        let cards = [told, silent];
        let registry = Registry::new();
        registry.register(Box::new(Cards::new(move || cards.to_vec()))).unwrap();
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
    fn without_a_driver_there_are_no_cards_and_a_reason() {
        if Path::new("/dev/nvidiactl").exists() {
            return;
        }
        let Err(reason) = Cards::open() else { panic!("there is no driver") };
        assert!(reason.starts_with("NVML cannot be used"), "{reason}");
    }
}
