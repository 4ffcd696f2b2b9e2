//! `stellar-score pack verify` of a generator pack: its images, compared with those of diffusers.

use std::{fmt::Write as _, path::Path, sync::Arc};

use super::{output::verdict, progress, start::start_generator};
use crate::{
    config::Config,
    engine::Pack,
    telemetry::Telemetry,
    verify::{GeneratorCertificate, GeneratorGoldens, certify_generator},
};

/// Generates the golden images of a pack and compares them.
pub(super) async fn certify(
    config: &Config,
    pack: &Path,
) -> anyhow::Result<(GeneratorCertificate, Arc<Pack>)> {
    let mut config = config.clone();
    // Every pass must run the models.
    config.engine.cache_bytes = 0;
    let generator = start_generator(&config, pack, None, Telemetry::new().engine).await?;
    let goldens = GeneratorGoldens::read(generator.pack())?;
    let bar = progress::bar("images compared");
    bar.set_length(goldens.samples.len() as u64);
    let certificate = certify_generator(&generator, &goldens, || bar.inc(1)).await;
    bar.finish_and_clear();
    generator.engine().drain().await;
    Ok((certificate?, Arc::clone(generator.pack())))
}

/// Returns the certificate as a table.
pub(super) fn table(certificate: &GeneratorCertificate, pack: &Pack) -> String {
    let mut text = format!(
        "Parity of generator pack {} ({}, {} weights) on this machine\nreference: {}\nallowed: \
            latents {:.0e}, at least {} % of bytes equal\n\n{:<28} {:>11} {:>9} {:>11} {:>9}  \
            batch\n",
        pack.name,
        pack.digest,
        pack.weights,
        certificate.reference,
        certificate.tolerance.latents,
        100.0 * certificate.tolerance.bytes,
        "image",
        "its noise",
        "bytes",
        "our noise",
        "bytes"
    );
    for line in &certificate.images {
        let _ = writeln!(
            text,
            "{:<28} {:>11.2e} {:>7.3} % {:>11.2e} {:>7.3} %  {:<6} {}",
            line.image,
            line.latents,
            100.0 * line.bytes,
            line.seed_latents,
            100.0 * line.seed_bytes,
            if line.batch_independent { "same" } else { "OTHER" },
            verdict(line.passed, "ok")
        );
    }
    let _ = writeln!(
        text,
        "\n{}: {} golden images, from the reference's noise and from ours, one by one and \
            concurrently (mean batch of the denoiser {:.1})",
        verdict(certificate.passed, "passed"),
        certificate.images.len(),
        certificate.mean_batch
    );
    text
}
