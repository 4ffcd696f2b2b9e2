//! Service metrics of the loaded pack.

use prometheus::{IntGaugeVec, Registry, register_int_gauge_vec_with_registry as gauges};

use crate::pack_id::PackId;

/// The state of the pack's own certificate (`drift.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateState {
    /// There is none.
    Missing,
    /// It is about the loaded pack.
    Valid,
    /// It cannot be read, or is about another pack.
    Invalid,
}

/// Service metrics of the loaded pack.
#[derive(Debug, Clone)]
pub struct PackTelemetry {
    info: IntGaugeVec,
    certificate: IntGaugeVec,
}

impl PackTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let info = gauges!(
            "stellar_pack_info",
            "Always 1, with the loaded pack as labels.",
            &["pack", "digest", "weights"],
            registry
        )?;
        let certificate = gauges!(
            "stellar_pack_certificate",
            "State of the pack's certificate: 1 for the current state, 0 for the others.",
            &["state"],
            registry
        )?;
        Ok(Self { info, certificate })
    }

    /// Sets the loaded pack.
    pub fn loaded(&self, pack: &PackId) {
        self.info.with_label_values(&[&pack.name, &pack.digest, pack.weights.as_str()]).set(1);
    }

    /// Sets the state of the pack's certificate.
    pub fn certificate(&self, now: CertificateState) {
        for (state, name) in [
            (CertificateState::Missing, "missing"),
            (CertificateState::Valid, "valid"),
            (CertificateState::Invalid, "invalid"),
        ] {
            self.certificate.with_label_values(&[name]).set(i64::from(state == now));
        }
    }
}
