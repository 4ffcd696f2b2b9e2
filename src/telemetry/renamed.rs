//! Gauges that are also exported under an old name.

use prometheus::{IntGaugeVec, Opts, Registry};

/// A gauge that is also exported under its 0.1 name, until 0.3.
#[derive(Debug, Clone)]
pub struct RenamedGauge([IntGaugeVec; 2]);

impl RenamedGauge {
    pub(super) fn register(
        registry: &Registry,
        [name, old]: [&str; 2],
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<Self> {
        let old_help = format!("Old name of {name}, to be removed in 0.3.");
        let gauges = [
            IntGaugeVec::new(Opts::new(name, help), labels)?,
            IntGaugeVec::new(Opts::new(old, old_help), labels)?,
        ];
        for gauge in &gauges {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(Self(gauges))
    }

    /// Sets the value for these labels, under both names.
    pub fn set(&self, labels: &[&str], value: i64) {
        for gauge in &self.0 {
            gauge.with_label_values(labels).set(value);
        }
    }
}
